"""What several commands take."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from magtkd.cli import complain
from magtkd.errors import ResumableError, SweepError
from tune.config import SweepOptions

__all__ = [
    "PATIENCE_SECONDS",
    "AddressOption",
    "MigrateOption",
    "NameArgument",
    "NoTrackingOption",
    "ShipCodeOption",
    "SweepArgument",
    "WaitNodesOption",
    "WaitSecondsOption",
    "check_alone",
    "command_of",
    "to_be_continued",
]

T = TypeVar("T")

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
WaitNodesOption = Annotated[
    int,
    typer.Option("--wait-nodes", min=1, metavar="N", help="Wait until the cluster has N nodes."),
]
WaitSecondsOption = Annotated[
    float, typer.Option("--wait-seconds", min=0, metavar="S", help="How long to wait for them.")
]
ShipCodeOption = Annotated[
    bool, typer.Option("--ship-code", help="Send magtkd to nodes that do not have it.")
]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The sweep's name.")]

PATIENCE_SECONDS = 20.0
"""How long a command that only shows something waits for a storage that does not answer."""


def check_alone(environment: Mapping[str, str]) -> None:
    """Refuse to be a second driver beside the one of srun's first task.

    Raises:
        SweepError: this is another task.
    """
    task, tasks = (environment.get(name, "") for name in ("SLURM_PROCID", "SLURM_NTASKS"))
    if task.isdecimal() and tasks.isdecimal() and int(task) > 0 and int(tasks) > 1:
        raise SweepError(
            f"srun: started this {tasks} times, and the sweep runs in the first of them; give srun "
            "-N1 -n1 --overlap, or use magtkd slurm"
        )


def command_of(options: SweepOptions, *words: str) -> str:
    """A command of magtkd that continues work with these options, for people."""
    # Without the address, it would run on this machine alone.
    address = ["--address", options.address] if options.address else []
    return shlex.join(["magtkd", *words, "--storage", options.storage, *address])


def to_be_continued(command: str, run: Callable[[Callable[[ResumableError], int]], T]) -> T:
    """What `run` gives. Where the storage or Ray went away, a line says how to continue.

    Args:
        command: continues the work.
        run: does the work; gets what to call in another thread when Ray is gone.

    Raises:
        typer.Exit: the work can be continued.
    """

    def on_lost(error: ResumableError) -> int:
        return complain(f"{error}; to continue: {command}", error.exit_code)

    try:
        return run(on_lost)
    except ResumableError as error:
        raise typer.Exit(on_lost(error)) from None
