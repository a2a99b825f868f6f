"""`magtkd stop`, `rm` and `gc`: ending a sweep, and what is left of those that nobody needs."""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from typing import Annotated

import typer
from rich.table import Table

from magtkd.cli import StorageOption, examples
from magtkd.errors import SweepError, shorten
from magtkd.store import patience_of
from tune.cli.options import PATIENCE_SECONDS, NameArgument
from tune.driver import end_driver, remove_sweep, remove_unused, unused_artifacts
from tune.ledger import SweepLayout
from tune.results import print_table

__all__ = ["add_storage"]

UNITS = {"m": 60, "h": 3600, "d": 86400}
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def add_storage(app: typer.Typer) -> None:
    """Add these commands to a command line."""
    soon = patience_of(PATIENCE_SECONDS)
    app.command("stop", epilog=examples("magtkd stop mosi"))(soon(stop))
    app.command("rm", epilog=examples("magtkd rm mosi", "magtkd rm mosi --runs --yes"))(remove)
    shown = examples("magtkd gc", "magtkd gc --older-than 30d --delete")
    app.command("gc", epilog=shown)(collect)


def stop(name: NameArgument, storage: StorageOption = "magtkd-results") -> None:
    """End a sweep's driver on this machine as Ctrl-C does: it saves what runs, and can be
    resumed."""
    driver = end_driver(SweepLayout.of(storage, name))
    print(f"{driver}: saves what runs, then ends")


def remove(
    name: NameArgument,
    storage: StorageOption = "magtkd-results",
    runs: Annotated[
        bool, typer.Option("--runs", help="Its runs in MLflow too, which else stay.")
    ] = False,
    yes: YesOption = False,
) -> None:
    """Remove a sweep: its ledger, its confirmations, its sessions. Artifacts stay, since other
    sweeps may use them; `magtkd gc` removes those that none does."""
    layout = SweepLayout.of(storage, name)
    _ask(f"remove sweep {name!r} from {layout.place}{' and from MLflow' if runs else ''}?", yes)
    remove_sweep(layout, storage, with_runs=runs)
    print(f"sweep {name!r}: removed; artifacts that no sweep uses: magtkd gc --storage {storage}")


def collect(
    storage: StorageOption = "magtkd-results",
    older_than: Annotated[
        str, typer.Option("--older-than", metavar="AGE", help="Such as 90m, 12h or 30d.")
    ] = "1d",
    delete: Annotated[bool, typer.Option("--delete", help="Remove them.")] = False,
    yes: YesOption = False,
) -> None:
    """Show the artifacts that no ledger of the storage names, with their sizes, and with --delete
    remove them. Those of `magtkd train` are among them."""
    unused = unused_artifacts(storage, _seconds(older_than))
    sums = defaultdict[str, list[int]](lambda: [0, 0])
    for one in unused:
        sums[one.stage][0] += 1
        sums[one.stage][1] += one.num_bytes
    table = Table(box=None, pad_edge=False)
    table.add_column("stage")
    for header in ("unused artifacts", "MB"):
        table.add_column(header, justify="right")
    for stage, (number, num_bytes) in sums.items():
        table.add_row(stage, str(number), f"{num_bytes / 1e6:.1f}")
    total = sum(one.num_bytes for one in unused)
    table.add_row("all", str(len(unused)), f"{total / 1e6:.1f}")
    print_table(table, sys.stdout)
    if delete and unused:
        _ask(f"remove {len(unused)} artifacts, {total / 1e6:.1f} MB?", yes)
        remove_unused(storage, unused)
        print("removed")


def _seconds(age: str) -> float:
    found = re.fullmatch(r"(\d{1,6}(?:\.\d{1,3})?)([mhd])", age)
    if found is None:
        raise SweepError(f"--older-than {shorten(age)}: write a number and m, h or d, such as 30d")
    return float(found[1]) * UNITS[found[2]]


def _ask(question: str, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise SweepError(f"{question} nobody can answer here; add --yes")
    if not typer.confirm(question):
        raise SweepError("nothing was removed")
