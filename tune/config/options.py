"""How a sweep is run, as apart from what it searches."""

from __future__ import annotations

from dataclasses import dataclass

from magtkd.pipeline import CORE_TRAINER, Trainer

__all__ = ["SweepOptions"]


@dataclass(frozen=True)
class SweepOptions:
    """How a sweep is run, as apart from what it searches.

    `storage` is where artifacts and ledgers go; `tracking_uri` MLflow's address, None for the
    default and an empty string for no tracking; `reuse` shares stages between trials;
    `max_failures` is how often the work of a process that died is done again; `trainer` opens
    the sessions that train.
    """

    storage: str = "magtkd-results"
    tracking_uri: str | None = None
    reuse: bool = True
    max_failures: int = 3
    trainer: Trainer = CORE_TRAINER
