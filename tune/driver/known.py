"""What is there when a driver begins: artifacts in the store, and what training took before."""

from __future__ import annotations

from magtkd.pipeline import STAGES
from magtkd.store import Store
from tune.config import SweepConfig
from tune.ledger import StoreListed, SweepLayout, sweeps_on
from tune.results import StageSeconds

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
    others = sweeps_on(layout, fingerprint, MOST_SWEEPS)
    known = StageSeconds(state for state in others if state.name != sweep.name)
    expected = {stage: known.expected(stage, sweep.base) for stage in STAGES}
    return StoreListed(
        keys={stage: found for stage, found in keys.items() if found},
        seconds={stage: one.mean for stage, one in expected.items() if one is not None},
    )
