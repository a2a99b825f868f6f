"""What several commands take."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from magtkd.errors import SweepError

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
