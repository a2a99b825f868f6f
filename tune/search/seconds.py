"""What training a stage takes, learned from the ledger."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from magtkd.pipeline import Outcome
from tune.ledger import Event, StagesRecorded, StoreListed, TrialSuggested
from tune.samplers import Columns
from tune.space import Problem, Values

__all__ = ["LearnedSeconds"]

GUESSES = {"data": 0.2, "audio_media": 5.0, "video_media": 5.0, "teacher": 1.0, "fusion": 4.0}
"""Relative to each other, before anything is known; a stage that is not named counts 2."""
ENCODER_GUESS = 30.0
"""Of a stage that trains a transformers encoder."""
MOST_TIMES = 5.0
"""An estimate is at most so many times what was seen, or that part of it."""


@dataclass(frozen=True)
class _Fit:
    seconds: float
    """The mean."""
    centre: np.ndarray
    weights: np.ndarray
    """Of the logarithm, by feature."""


class LearnedSeconds:
    """Seconds by stage and values.

    The logarithm of the seconds is a ridge regression on the searched values that the stage itself
    reads, which shrinks to the mean where records are few. Of stages that were not trained yet,
    the relation to the others is a guess.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._columns = Columns(problem.space)
        self._values: dict[int, Values] = {}
        self._records: defaultdict[str, dict[str, tuple[np.ndarray, float]]] = defaultdict(dict)
        """By stage and key: the features [F] and the seconds."""
        self._earlier: dict[str, float] = {}
        self._fits: dict[str, _Fit] = {}

    def apply(self, event: Event) -> None:
        """Learn from one event of the ledger."""
        match event:
            case TrialSuggested():
                self._values[event.trial] = event.values
            case StoreListed():
                self._earlier |= event.seconds
            case StagesRecorded():
                for stage, record in event.stages.items():
                    reused = record.outcome == Outcome.REUSED
                    seconds = record.saved if reused else record.seconds
                    values = self._values.get(event.trial)
                    if seconds and seconds > 0 and values is not None:
                        features = self._features(stage, values)
                        self._records[stage][record.key] = features, seconds
                        self._fits.pop(stage, None)

    def __call__(self, stage: str, values: Values) -> float:
        """Seconds that training a stage with these values takes, as far as is known."""
        if not self._records.get(stage):
            known = self._earlier.get(stage)
            return self._guess(stage, values) * self._scale() if known is None else known
        fit = self._fit(stage)
        change = float((self._features(stage, values) - fit.centre) @ fit.weights)
        limit = math.log(MOST_TIMES)
        return fit.seconds * math.exp(min(max(change, -limit), limit))

    def _fit(self, stage: str) -> _Fit:
        if stage not in self._fits:
            records = list(self._records[stage].values())
            seconds = np.array([one for _, one in records])
            features = np.array([one for one, _ in records])
            centre = features.mean(axis=0)
            shifted, logs = features - centre, np.log(seconds)
            gram = shifted.T @ shifted + np.eye(len(centre))
            weights = np.linalg.solve(gram, shifted.T @ (logs - logs.mean()))
            self._fits[stage] = _Fit(float(seconds.mean()), centre, weights)
        return self._fits[stage]

    def _guess(self, stage: str, values: Values) -> float:
        section = getattr(self._problem.base, stage, None)
        encoder = values.get(f"{stage}.encoder", getattr(section, "encoder", "features"))
        return ENCODER_GUESS if encoder != "features" else GUESSES.get(stage, 2.0)

    def _scale(self) -> float:
        means = self._earlier | {
            stage: float(np.mean([seconds for _, seconds in records.values()]))
            for stage, records in self._records.items()
        }
        known = [seconds / self._guess(stage, {}) for stage, seconds in means.items()]
        return float(np.mean(known)) if known else 1.0

    def _features(self, stage: str, values: Values) -> np.ndarray:
        """[F] what a stage reads of the searched values: places in ranges, choices as 0 and 1."""
        point = self._columns.encode(values)
        found: list[float] = []
        columns = zip(point, self._columns.num_choices, self._columns.names, strict=True)
        for place, number, name in columns:
            if stage in self._problem.space.sections[name]:
                known = not math.isnan(place)
                if number:
                    found += [float(known and place == one) for one in range(number)]
                else:
                    found.append(float(place) if known else 0.5)
        return np.array(found)
