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
    migrate_tracking: bool = False
    """Bring the database of an older MLflow to what the installed one needs."""
    reuse: bool = True
    """Share stages between trials."""
    max_failures: int = 3
    """How often the work of a process that died is retried."""
    address: str | None = None
    """The Ray cluster: HOST:PORT, or `auto` for the one that runs on this machine; None for
    RAY_ADDRESS, and where that is not set, for one of the sweep's own."""
    wait_nodes: int = 1
    """How many nodes the cluster must have before the sweep begins."""
    wait_seconds: float = 600.0
    """How long these are waited for."""
    ship_code: bool = False
    """Send magtkd to nodes that do not have it."""
    trainer: Trainer = CORE_TRAINER
    """What opens the sessions that train."""
