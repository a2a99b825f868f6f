"""`magtkd table`: the table of a paper, from sweeps and configurations."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from magtkd.cli import (
    EXIT_CODES,
    JsonOption,
    Overrides,
    StorageOption,
    examples,
    write_text,
)
from tune.cli.options import (
    AddressOption,
    NoTrackingOption,
    ShipCodeOption,
    WaitNodesOption,
    WaitSecondsOption,
    check_alone,
    command_of,
    to_be_continued,
)
from tune.config import SweepOptions, TableSpec, load_table
from tune.ledger import storage_root
from tune.results import TABLE_FORMATS

__all__ = ["add_table"]


def add_table(app: typer.Typer) -> None:
    """Add `table` to a command line."""
    shown = examples(
        "magtkd table experiments/paper_mosi.yaml",
        "magtkd table experiments/paper_mosi.yaml data.MOSI.path=mosi.parquet seeds=10",
        "magtkd table experiments/paper_mosi.yaml --out paper/tables",
    )
    app.command("table", epilog=f"{shown}\n\n{EXIT_CODES}")(make_table)


def make_table(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The table's YAML file.")],
    overrides: Overrides = None,
    storage: StorageOption = "magtkd-results",
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where the files go [STORAGE/tables/NAME]."),
    ] = None,
    address: AddressOption = None,
    wait_nodes: WaitNodesOption = 1,
    wait_seconds: WaitSecondsOption = 600.0,
    ship_code: ShipCodeOption = False,
    no_tracking: NoTrackingOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train what a table's rows lack, reveal test for them, and write the table.

    It is written as Markdown, LaTeX, CSV and JSON. The same command continues what was interrupted,
    and trains nothing that there is.
    """
    spec = load_table(file, overrides or ())
    options = SweepOptions(
        storage=storage,
        tracking_uri="" if no_tracking else None,
        address=address,
        wait_nodes=wait_nodes,
        wait_seconds=wait_seconds,
        ship_code=ship_code,
    )
    # Ray takes seconds to load.
    from tune.driver import build_table

    check_alone(os.environ)
    command = command_of(options, "table", str(file), *(overrides or ()))
    table = to_be_continued(command, lambda on_lost: build_table(spec, options, on_lost=on_lost))
    if table is None:
        print(f"interrupted; to continue: {command}")
        raise typer.Exit(130)
    folder = _folder(out, storage, spec)
    for suffix, text_of in TABLE_FORMATS.items():
        write_text(folder / f"table.{suffix}", text_of(table))
    print(TABLE_FORMATS["json" if as_json else "md"](table), end="")
    print(f"written: {folder / 'table.'}{{{','.join(TABLE_FORMATS)}}}", file=sys.stderr)
    if not table.is_whole:
        raise typer.Exit(1)


def _folder(out: Path | None, storage: str, spec: TableSpec) -> Path:
    return storage_root(storage) / "tables" / spec.name if out is None else out
