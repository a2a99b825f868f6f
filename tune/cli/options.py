"""What several commands take."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["PATIENCE_SECONDS", "AddressOption", "NameArgument"]

AddressOption = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="HOST:PORT|auto",
        help="Join this Ray cluster; default RAY_ADDRESS, else Ray is started here.",
    ),
]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The sweep's name.")]

PATIENCE_SECONDS = 20.0
"""How long a command that only shows something waits for a storage that does not answer."""
