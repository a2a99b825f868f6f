"""How a sweep is run, as apart from what it searches."""

from __future__ import annotations

from dataclasses import dataclass

from magtkd.pipeline import CORE_TRAINER, Trainer

__all__ = ["SweepOptions"]


@dataclass(frozen=True, kw_only=True)
class SweepOptions:
    """How a sweep is run, as apart from what it searches."""

    storage: str = "magtkd-results"
    """Where artifacts and ledgers go."""
    tracking_uri: str | None = None
    """MLflow's address; None for the default, an empty string for no tracking."""
    reuse: bool = True
    """Share stages between trials."""
    max_failures: int = 3
    """How often the work of a process that died is retried."""
    trainer: Trainer = CORE_TRAINER
    """What opens the sessions that train."""
