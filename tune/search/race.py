"""A race: the best configurations of a sweep on fresh seeds, until each is worse or has them all.

Seeds are given in rounds. After a round, the configurations that had its seeds are compared
(`tune.stats`), those that are worse than the best with confidence get no more, and the figures are
an event of the ledger: a driver that continues reads them and compares nothing again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from magtkd.errors import SweepError
from magtkd.scoring import Predictions
from tune.ledger import (
    Event,
    RaceEntry,
    RaceSetup,
    RoundDecided,
    StagesRecorded,
    Standing,
    TrialEnded,
    TrialStatus,
)
from tune.search.trainings import Trainings
from tune.space import Candidate
from tune.stats import (
    FIRST_LOOK,
    Scored,
    behind,
    conversation_counts,
    estimates,
    num_looks,
    score_run,
)

__all__ = ["Race"]

Predict = Callable[[Mapping[str, str]], Predictions]
"""Gives the predictions of a trial on dev, from the keys of its stages."""


class Race(Trainings):
    """What a confirmation trains next, and when it is over.

    Args:
        setup: the configurations and the seeds.
        metric: the score of dev that ranks them, as `score_counts` has it.
        predict: reads what a trial predicts.
        events: the ledger's events so far.
    """

    def __init__(
        self, setup: RaceSetup, metric: str, predict: Predict, events: Iterable[Event] = ()
    ) -> None:
        self._setup, self._metric, self._predict = setup, metric, predict
        self._alive = list(setup.entries)
        self._last: RoundDecided | None = None
        self._keys: dict[int, dict[str, str]] = {}
        self._ended: dict[str, tuple[int, TrialEnded]] = {}
        self._scores: dict[int, tuple[NDArray[np.float64], NDArray[np.float64]]] = {}
        self._first: Predictions | None = None
        super().__init__(events=events)

    @property
    def max_trials(self) -> int | None:
        """Trials that there will be at most: those that are out get no more."""
        left = len(self._setup.seeds) - (self._last.num_seeds if self._last else 0)
        before = self.num_trials if self._last else 0
        return before if self.is_over else before + len(self._alive) * left

    @property
    def is_over(self) -> bool:
        """Whether the last round was decided."""
        return self._last is not None and self._last.is_last

    @property
    def has_more(self) -> bool:
        """Whether the last round is still to be decided."""
        return not self.is_over

    @property
    def _num_seeds(self) -> int:
        """Of each configuration, after the round that is at work. One that has no other beside it
        gets the rest at once."""
        every = len(self._setup.seeds)
        if len(self._alive) < 2:
            return every
        return min(every, FIRST_LOOK if self._last is None else self._last.num_seeds + 1)

    def wanted(self) -> Iterator[Candidate]:
        """The trials of the round that is at work, seed by seed."""
        if self.is_over:
            return
        for seed in self._setup.seeds[: self._num_seeds]:
            for entry in self._alive:
                if self._failure(entry) is None:
                    yield entry.candidate(seed)

    def due(self) -> RoundDecided | None:
        """What the round comes to, once all of its trials have ended.

        Raises:
            ArtifactError: what a trial predicted is missing or damaged.
            SweepError: the trials were not scored on the same utterances.
        """
        if self.is_over or self.running or self.next() is not None:
            return None
        failed = [
            Standing(trial=entry.trial, is_out=True, failed=why)
            for entry in self._alive
            if (why := self._failure(entry)) is not None
        ]
        entries = [entry for entry in self._alive if self._failure(entry) is None]
        standings = self._compare(entries) if entries else []
        is_last = self._num_seeds == len(self._setup.seeds) or not entries
        return RoundDecided(
            num_seeds=self._num_seeds,
            standings=[*standings, *failed],
            is_last=is_last,
            chosen=standings[0].trial if is_last and standings else None,
        )

    def apply(self, event: Event) -> None:
        match event:
            case StagesRecorded():
                keys = {stage: record.key for stage, record in event.stages.items()}
                self._keys.setdefault(event.trial, {}).update(keys)
            case TrialEnded() if event.trial in self.running:
                self._ended[self.running[event.trial].name] = event.trial, event
            case RoundDecided():
                out = {one.trial for one in event.standings if one.is_out}
                self._alive = [entry for entry in self._alive if entry.trial not in out]
                self._last = event
        super().apply(event)

    def _failure(self, entry: RaceEntry) -> str | None:
        """Why a configuration has no result with one of its seeds, if so."""
        for seed in self._setup.seeds:
            _, ended = self._ended.get(entry.candidate(seed).name, (0, None))
            if ended is not None and ended.state != TrialStatus.COMPLETED:
                return f"{ended.state} with seed {seed}: {ended.message or 'no message'}"
        return None

    def _compare(self, entries: list[RaceEntry]) -> list[Standing]:
        seeds = self._setup.seeds[: self._num_seeds]
        scored = Scored.of(
            [[self._score_of(entry.candidate(seed)) for seed in seeds] for entry in entries]
        )
        means = estimates(scored, self._setup.confidence)
        num_tests = num_looks(len(self._setup.seeds)) * (len(self._setup.entries) - 1)
        found = [
            Standing(
                trial=entry.trial,
                mean=mean.mean,
                deviation=mean.deviation,
                low=mean.low,
                high=mean.high,
                gap=one.gap,
                p=one.p,
                is_out=one.p <= 1 - self._setup.confidence,
            )
            for entry, mean, one in zip(entries, means, behind(scored, num_tests), strict=True)
        ]
        # Among equals, as the sweep ranked them; who leads is never out.
        return sorted(found, key=lambda one: (one.is_out, one.gap))

    def _score_of(self, candidate: Candidate) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        number, _ = self._ended[candidate.name]
        if number not in self._scores:
            found = self._predict(self._keys[number])
            self._first = self._first or found
            rows = [np.lexsort((one.utterance, one.conversation)) for one in (found, self._first)]
            for name in ("conversation", "utterance", "label"):
                one, other = getattr(found, name), getattr(self._first, name)
                if len(one) != len(other) or (one[rows[0]] != other[rows[1]]).any():
                    raise SweepError(
                        f"trial {number}: dev has other utterances than in the first trial, so "
                        "that they cannot be compared; leave data.dev_fraction out of the space"
                    )
            counts = conversation_counts(
                found.label, found.prediction, found.conversation, len(found.labels)
            )
            self._scores[number] = score_run(counts, self._metric, found.labels)
        return self._scores[number]
