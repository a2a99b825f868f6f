"""What several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "PATIENCE_SECONDS",
    "AddressOption",
    "MigrateOption",
    "NameArgument",
    "NoTrackingOption",
    "SweepArgument",
]

AddressOption = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="HOST:PORT|auto",
        help="Join this Ray cluster; default RAY_ADDRESS, else Ray is started here.",
    ),
]
MigrateOption = Annotated[
    bool,
    typer.Option("--migrate-tracking", help="Migrate an older MLflow's database; back it up."),
]
NoTrackingOption = Annotated[bool, typer.Option("--no-tracking", help="Do not record in MLflow.")]
SweepArgument = Annotated[
    Path | None, typer.Argument(metavar="[SWEEP]", help="A YAML file with a `space`.")
]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The sweep's name.")]

PATIENCE_SECONDS = 20.0
"""How long a command that only shows something waits for a storage that does not answer."""
