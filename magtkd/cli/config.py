"""`magtkd config`: what can be configured, and what a file resolves to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from magtkd.cli.app import examples
from magtkd.cli.options import JsonOption
from magtkd.config import (
    Config,
    Section,
    file_schema,
    load_config,
    nearest,
    read_config_file,
    section_of,
)
from magtkd.errors import ConfigError, shorten

__all__ = ["make_config_app"]


def make_config_app(
    sweep_model: type[Config] | None = None, table_model: type[Section] | None = None
) -> typer.Typer:
    """The commands `schema` and `show`; with a model of sweeps, for sweep files too, and `schema`
    for files of tables with a model of these."""
    app = typer.Typer(
        no_args_is_help=True,
        help="Print the configuration schema, or what a file resolves to.",
        epilog=examples("magtkd config show experiments/mosi.yaml fusion"),
    )

    @app.command("schema", epilog=examples("magtkd config schema --sweep > sweep.schema.json"))
    def print_schema(
        sweep: Annotated[
            bool, typer.Option("--sweep", help="Schema of a sweep file instead.")
        ] = False,
        table: Annotated[
            bool, typer.Option("--table", help="Schema of the file of a paper's table instead.")
        ] = False,
    ) -> None:
        """Print the JSON schema of a configuration file, for editors."""
        model: type[Section] = Config
        if sweep and sweep_model is not None:
            model = sweep_model
        elif table and table_model is not None:
            model = table_model
        print(json.dumps(file_schema(model), indent=2))

    @app.command(
        "show",
        epilog=examples(
            "magtkd config show experiments/mosi.yaml fusion",
            "magtkd config show experiments/mosi_sweep.yaml search",
        ),
    )
    def show(
        file: Annotated[Path, typer.Argument(metavar="FILE", help="A YAML file.")],
        section: Annotated[
            str | None, typer.Argument(metavar="[SECTION]", help="Only this section or name.")
        ] = None,
        as_json: JsonOption = False,
    ) -> None:
        """Print the resolved values of a file, each with a line of description."""
        is_plain = set(read_config_file(file)) <= set(Config.model_fields)
        model = Config if is_plain or sweep_model is None else sweep_model
        _print_values(load_config(file, (), model), section, as_json=as_json)

    return app


def _print_values(config: Config, section: str | None, *, as_json: bool) -> None:
    """Print a configuration's values, or those of one section.

    Raises:
        ConfigError: there is no such section.
    """
    rows = list(_values_of(config))
    if section is not None:
        chosen = [row for row in rows if row[0] == section or row[0].startswith(f"{section}.")]
        if not chosen:
            known = sorted({name.split(".")[0] for name, _, _ in rows})
            raise ConfigError(
                f"section {shorten(section)!r}: no such section or name{nearest(section, known)}; "
                f"sections are {', '.join(known)}"
            )
        rows = chosen
    if as_json:
        print(json.dumps({name: value for name, value, _ in rows}, indent=2))
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_column(overflow="fold", style="dim")
    for name, value, described in rows:
        table.add_row(name, Text(json.dumps(value, ensure_ascii=False)), Text(described))
    Console().print(table)


def _values_of(config: Section, prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    """Each value of a configuration: dotted name, plain value, first sentence of its meaning."""
    plain = config.model_dump(mode="json")
    described = config.descriptions()
    for name, field in type(config).model_fields.items():
        inner = getattr(config, name)
        if isinstance(inner, Section):
            yield from _values_of(inner, f"{prefix}{name}.")
            continue
        about = " ".join((described.get(name) or _about(field.annotation)).split())
        yield f"{prefix}{name}", plain[name], about


def _about(annotation: Any) -> str:
    """What a section that is null would be."""
    section = section_of(annotation)
    return (section.__doc__ or "").split("\n\n")[0] if section is not None else ""
