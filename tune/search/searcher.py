"""The searcher: what Ray Tune asks for the next trial."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import ray.tune.search as ray_search

from tune.search.study import SweepStudy
from tune.space import Assignment, Candidate

__all__ = ["OptunaSearcher"]


class OptunaSearcher(ray_search.Searcher):  # type: ignore[misc]
    """What Ray Tune asks for the next trial.

    Trials of an earlier driver that have not ended are handed out first; those after them are new,
    and `on_suggest` is called for each before Ray gets it.

    How a trial goes does not arrive here: Ray reports the same to a searcher for a trial that it
    stopped and for one that completed. The driver writes the ledger and applies its events to the
    study.

    Args:
        study: the study, with the ledger's events so far.
        on_suggest: called with the number and the candidate of each new trial.
        unfinished: the trials that have not ended.
        used: gives the share of the budget's hours that is used.
    """

    def __init__(
        self,
        study: SweepStudy,
        on_suggest: Callable[[int, Candidate], None],
        unfinished: Iterable[Assignment] = (),
        used: Callable[[], float] = lambda: 0.0,
    ) -> None:
        super().__init__()
        self._study = study
        self._on_suggest = on_suggest
        self._unfinished = deque(unfinished)
        self._used = used

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        if self._unfinished:
            return self._unfinished.popleft().to_ray()
        asked = self._study.ask(self._used())
        if asked is None:
            return str(self.FINISHED)
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
