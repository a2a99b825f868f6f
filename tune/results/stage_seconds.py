"""What a stage takes to train, by what such stages have taken so far."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean

from magtkd.config import Config
from magtkd.pipeline import Outcome
from tune.ledger import SweepState, TrialState

__all__ = ["TRAINED", "Seconds", "StageSeconds"]

TRAINED = {Outcome.TRAINED, Outcome.STOPPED, Outcome.RECOVERED}


@dataclass(frozen=True)
class Seconds:
    """Seconds that are expected, the fewest and the most that were recorded."""

    mean: float
    low: float
    high: float

    def plus(self, other: Seconds) -> Seconds:
        """The two one after another."""
        return Seconds(self.mean + other.mean, self.low + other.low, self.high + other.high)

    def times(self, number: float) -> Seconds:
        """So many times as much."""
        return Seconds(number * self.mean, number * self.low, number * self.high)


class StageSeconds:
    """The seconds of training that ledgers have recorded, stage by stage and each key once. What a
    scheduler stopped counts as what it took until then; what was reused, as what it had taken.

    Args:
        states: sweeps on the same data.
    """

    def __init__(self, states: Iterable[SweepState] = ()) -> None:
        self._recorded = defaultdict[str, dict[str, float]](dict)
        self._expected = dict[str, Seconds]()
        for state in states:
            for trial in state.trials.values():
                self.add(trial)

    def add(self, trial: TrialState) -> None:
        """Learn what a trial has recorded; again, where it has recorded more."""
        for stage, record in trial.stages.items():
            known = self._recorded[stage]
            seconds = known.get(record.key)
            if record.outcome in TRAINED:
                known[record.key] = record.seconds
            elif record.saved is not None:
                known.setdefault(record.key, record.saved)
            if known.get(record.key) != seconds:
                self._expected.pop(stage, None)

    def expected(self, stage: str, config: Config) -> Seconds | None:
        """What a stage of a configuration takes; None where none like it is recorded.

        Args:
            stage: its name.
            config: the whole configuration, of which the stage reads its part.
        """
        recorded = self._recorded.get(stage, {}).values()
        if recorded and stage not in self._expected:
            self._expected[stage] = Seconds(fmean(recorded), min(recorded), max(recorded))
        return self._expected.get(stage)
