"""`magtkd doctor`: is this machine ready for a sweep?"""

from __future__ import annotations

import json
from dataclasses import asdict

import typer
from rich.console import Console

from magtkd.cli import JsonOption, StorageOption, examples

__all__ = ["add_doctor"]


def add_doctor(app: typer.Typer) -> None:
    """Add `doctor` to a command line."""
    app.command("doctor", epilog=examples("magtkd doctor --storage magtkd-results"))(doctor)


def doctor(storage: StorageOption = "magtkd-results", as_json: JsonOption = False) -> None:
    """Check versions, devices, storage, MLflow, Ray and the environment.

    The exit code is 1 where there is a problem.
    """
    from tune.doctor import Outcome, run_checks

    console, checks = Console(), []
    for check in run_checks(storage):
        checks.append(check)
        if not as_json:
            line = f"{check.outcome:8} {check.name:16} {check.message}"
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    if as_json:
        print(json.dumps([asdict(check) for check in checks], indent=2))
    if any(check.outcome == Outcome.PROBLEM for check in checks):
        raise typer.Exit(1)
