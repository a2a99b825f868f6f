"""What several commands take."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["JsonOption", "Overrides", "StorageOption"]

Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Configuration values to override."),
]
StorageOption = Annotated[
    str,
    typer.Option("--storage", metavar="DIR", help="Folder or pyarrow.fs address for results."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
