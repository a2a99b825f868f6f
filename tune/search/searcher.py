"""The searcher: what Ray Tune asks for the next trial."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import ray.tune.search as ray_search

from tune.ledger import Event
from tune.space import Assignment, Candidate

__all__ = ["Proposer", "SweepSearcher"]


class Proposer(Protocol):
    """What decides which trials there are: a `SweepStudy`, `Trainings`, or a `Race`. It learns from
    the ledger's events and from nothing else."""

    @property
    def running(self) -> Mapping[int, Candidate]:
        """The trials that were suggested and have not ended, as they were suggested."""

    @property
    def reads_store(self) -> bool:
        """Whether suggestions depend on what is in the store."""

    @property
    def num_trials(self) -> int:
        """Trials that were suggested so far."""

    @property
    def max_trials(self) -> int | None:
        """Trials that there will be at most; None where that is open."""

    @property
    def has_more(self) -> bool:
        """Whether there may be trials that were not suggested yet."""

    def ask(self, used: float = 0.0) -> tuple[int, Candidate] | None:
        """Number and candidate of the next trial; None where there is none, or none before another
        has ended."""

    def due(self) -> Event | None:
        """What is to be recorded, after a trial has ended, before the next is asked for."""

    def apply(self, event: Event) -> None:
        """Learn from one event of the ledger."""


class SweepSearcher(ray_search.Searcher):  # type: ignore[misc]
    """What Ray Tune asks for the next trial.

    Trials of an earlier driver that have not ended are handed out first; those after them are new,
    and `on_suggest` is called for each before Ray gets it.

    How a trial goes does not arrive here: Ray reports the same to a searcher for a trial that it
    stopped and for one that completed. The driver writes the ledger and applies its events to the
    study.

    Args:
        study: what suggests, with the ledger's events so far.
        on_suggest: called with the number and the candidate of each new trial.
        unfinished: the trials that have not ended.
        used: gives the share of the budget's hours that is used.
    """

    def __init__(
        self,
        study: Proposer,
        on_suggest: Callable[[int, Candidate], None],
        unfinished: Iterable[Assignment] = (),
        used: Callable[[], float] = lambda: 0.0,
    ) -> None:
        super().__init__()
        self._study = study
        self._on_suggest = on_suggest
        self._unfinished = deque(unfinished)
        self._used = used

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if self._unfinished:
            return self._unfinished.popleft().to_ray()
        asked = self._study.ask(self._used())
        if asked is None:
            # In a race, the next trials are known when those that run have ended.
            is_waiting = self._study.has_more and self._study.running
            return None if is_waiting else str(self.FINISHED)
        number, candidate = asked
        self._on_suggest(number, candidate)
        return Assignment(number=number, candidate=candidate).to_ray()

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        pass

    def save(self, checkpoint_path: str) -> None:
        """Nothing is saved with Ray: the ledger is the truth."""

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError("a sweep continues from its ledger, see SweepStudy")

    def __getstate__(self) -> dict[str, Any]:
        # Ray pickles the searcher into a folder that nothing is read from; the driver's open ledger
        # behind `on_suggest` could not be pickled.
        return {}
