"""What several commands take."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["NameArgument"]

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The sweep's name.")]
