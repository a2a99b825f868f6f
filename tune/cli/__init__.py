"""The command line of the search."""

from tune.cli.app import app, main

__all__ = ["app", "main"]
