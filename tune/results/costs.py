"""What a sweep cost, stage by stage, and what reuse saved."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from magtkd.pipeline import Outcome, StageRecord
from tune.ledger import SweepState

__all__ = ["DeviceCost", "StageCost", "device_cost", "sweep_cost"]


@dataclass(frozen=True, kw_only=True)
class StageCost:
    """What one stage cost over all trials, in seconds, and what reuse saved.

    `seconds_trained` holds the stopped ones too: they left no artifact, but they cost.
    `num_unknown` counts reuses for which the ledger does not have what training took.
    """

    num_trained: int = 0
    num_stopped: int = 0
    num_reused: int = 0
    seconds_trained: float = 0.0
    seconds_saved: float = 0.0
    num_unknown: int = 0

    def to_json(self) -> dict[str, Any]:
        """The numbers as a JSON object."""
        return asdict(self)


def sweep_cost(state: SweepState) -> dict[str, StageCost]:
    """The cost of each stage; a reuse saved what training its key took."""
    known = {record.key: record.seconds for _, record in _records(state, Outcome.TRAINED)}
    names = dict.fromkeys(stage for trial in state.trials.values() for stage in trial.stages)
    return {name: _stage_cost(state, name, known) for name in names}


@dataclass(frozen=True, kw_only=True)
class DeviceCost:
    """Hours of one kind of device: of whole GPUs, or of CPUs. A quarter of a GPU for an hour is a
    quarter of an hour."""

    hours_trained: float = 0.0
    hours_saved: float = 0.0
    """By reuse: what training had taken on the device that trained it."""


def device_cost(state: SweepState) -> dict[str, DeviceCost]:
    """The cost on each kind of device, as far as the ledger names it: older ones do not."""
    known = {record.key: record for _, record in _records(state, Outcome.TRAINED)}
    trained, saved = defaultdict[str, float](float), defaultdict[str, float](float)
    for trial in state.trials.values():
        for record in trial.stages.values():
            is_gone = record.outcome == Outcome.REUSED and record.saved is None
            by = known.get(record.key, record) if is_gone else record
            if by.device is not None and by.share is not None:
                seconds = by.seconds if is_gone else record.saved or 0.0
                trained[by.device] += by.share * record.seconds / 3600
                saved[by.device] += by.share * seconds / 3600
    return {
        device: DeviceCost(hours_trained=hours, hours_saved=saved[device])
        for device, hours in trained.items()
    }


def _stage_cost(state: SweepState, name: str, known: Mapping[str, float]) -> StageCost:
    trained = [record for stage, record in _records(state, Outcome.TRAINED) if stage == name]
    reused = [record for stage, record in _records(state, Outcome.REUSED) if stage == name]
    stopped = [record for stage, record in _records(state, Outcome.STOPPED) if stage == name]
    costs = [known.get(r.key) if r.saved is None else r.saved for r in reused]
    return StageCost(
        num_trained=len(trained),
        num_stopped=len(stopped),
        num_reused=len(reused),
        seconds_trained=sum(record.seconds for record in [*trained, *stopped]),
        seconds_saved=sum(cost for cost in costs if cost is not None),
        num_unknown=costs.count(None),
    )


def _records(state: SweepState, outcome: Outcome) -> Iterator[tuple[str, StageRecord]]:
    for trial in state.trials.values():
        for stage, record in trial.stages.items():
            if record.outcome == outcome:
                yield stage, record
