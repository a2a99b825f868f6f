"""What a stage takes to train, by what such stages have taken so far."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean

from magtkd.config import Config
from magtkd.pipeline import Outcome
from tune.ledger import SweepState, TrialState
from tune.space import Values

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
    """The seconds of training that ledgers have recorded, by stage and encoder and each key once.
    What a scheduler stopped counts as what it took until then; what was reused, as what it had
    taken.

    Args:
        states: sweeps on the same data.
    """

    def __init__(self, states: Iterable[SweepState] = ()) -> None:
        self._recorded = defaultdict[tuple[str, str], dict[str, float]](dict)
        self._expected = dict[tuple[str, str], Seconds]()
        for state in states:
            for trial in state.trials.values():
                self.add(trial, state.sweep.base)

    def add(self, trial: TrialState, base: Config) -> None:
        """Learn what a trial has recorded; again, where it has recorded more.

        Args:
            trial: of a sweep.
            base: the configuration around which it searched.
        """
        for stage, record in trial.stages.items():
            kind = stage, _encoder(stage, base, trial.values)
            known = self._recorded[kind]
            seconds = known.get(record.key)
            if record.outcome in TRAINED:
                known[record.key] = record.seconds
            elif record.saved is not None:
                known.setdefault(record.key, record.saved)
            if known.get(record.key) != seconds:
                self._expected.pop(kind, None)

    def expected(self, stage: str, config: Config) -> Seconds | None:
        """What a stage of a configuration takes; None where none with its encoder is recorded.

        Args:
            stage: its name.
            config: the whole configuration, of which the stage reads its part.
        """
        kind = stage, _encoder(stage, config, {})
        recorded = self._recorded.get(kind, {}).values()
        if recorded and kind not in self._expected:
            self._expected[kind] = Seconds(fmean(recorded), min(recorded), max(recorded))
        return self._expected.get(kind)


def _encoder(stage: str, base: Config, values: Values) -> str:
    """The encoder of a stage, on which more depends than on all else; empty where it has none."""
    own = getattr(getattr(base, stage, None), "encoder", "")
    return str(values.get(f"{stage}.encoder", own))
