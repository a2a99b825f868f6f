"""What is there when a driver begins: artifacts in the store, and what training took before."""

from __future__ import annotations

from collections import defaultdict

from magtkd.pipeline import STAGES, Outcome
from magtkd.store import Store
from tune.config import SweepConfig
from tune.ledger import StoreListed, SweepLayout, SweepState, sweeps_on

__all__ = ["list_store"]

MOST_SWEEPS = 5
"""The latest so many other sweeps are read for what training takes."""


def list_store(
    sweep: SweepConfig, layout: SweepLayout, store: Store, fingerprint: str
) -> StoreListed:
    """The artifacts that trials could reuse, and the seconds that training took in other sweeps of
    the same table, where the storage is a folder.

    Args:
        sweep: the sweep that begins, or goes on.
        layout: where it is.
        store: where the artifacts are.
        fingerprint: of its table.
    """
    stages = STAGES[:-1]  # each trial has a fusion of its own
    keys = {stage: store.list_folders(f"artifacts/{stage}") for stage in stages}
    seconds: defaultdict[str, list[float]] = defaultdict(list)
    for state in sweeps_on(layout, fingerprint, MOST_SWEEPS):
        if state.name != sweep.name:
            _add_seconds(seconds, state, sweep)
    return StoreListed(
        keys={stage: found for stage, found in keys.items() if found},
        seconds={stage: sum(found) / len(found) for stage, found in seconds.items()},
    )


def _add_seconds(
    seconds: defaultdict[str, list[float]], state: SweepState, sweep: SweepConfig
) -> None:
    for trial in state.trials.values():
        for stage, record in trial.stages.items():
            is_whole = record.outcome == Outcome.TRAINED
            if is_whole and _encoder(state.sweep, stage) == _encoder(sweep, stage):
                seconds[stage].append(record.seconds)


def _encoder(sweep: SweepConfig, stage: str) -> str | None:
    """The encoder of a stage that has one."""
    return getattr(getattr(sweep, stage, None), "encoder", None)
