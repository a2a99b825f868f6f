"""`magtkd doctor`: is this machine ready for a sweep?"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console

from magtkd.cli import JsonOption, StorageOption, examples
from magtkd.store import patience_of
from tune.cli.options import PATIENCE_SECONDS, AddressOption

__all__ = ["add_doctor"]


def add_doctor(app: typer.Typer) -> None:
    """Add `doctor` to a command line."""
    shown = examples(
        "magtkd doctor --storage magtkd-results",
        "magtkd doctor --address auto --storage /shared/magtkd --data /shared/clips",
    )
    app.command("doctor", epilog=shown)(patience_of(PATIENCE_SECONDS)(doctor))


def doctor(
    storage: StorageOption = "magtkd-results",
    address: AddressOption = None,
    data: Annotated[
        list[str] | None,
        typer.Option(metavar="PATH", help="A file or folder that every node must have."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check versions, devices, storage, MLflow, the environment, and each node of a cluster.

    The exit code is 1 where there is a problem.
    """
    from tune.doctor import Outcome, run_checks

    console, checks = Console(), []
    for check in run_checks(storage, address, data or ()):
        checks.append(check)
        if not as_json:
            line = f"{check.outcome:8} {check.name:16} {check.message}"
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    if as_json:
        print(json.dumps([asdict(check) for check in checks], indent=2))
    if any(check.outcome == Outcome.PROBLEM for check in checks):
        raise typer.Exit(1)
