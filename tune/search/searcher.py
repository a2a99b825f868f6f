"""The searcher: what Ray Tune asks for the next trial."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import ray.tune.search as ray_search

from tune.config.space import Values
from tune.search.samplers import make_sampler
from tune.search.study import SweepStudy, study_of

__all__ = ["OptunaSearcher", "SweepStudy", "make_sampler", "study_of"]


class OptunaSearcher(ray_search.Searcher):  # type: ignore[misc]
    """What Ray Tune asks for the next trial.

    A trial's configuration in Ray is flat: its values by dotted name, and its number as `trial`.
    Trials of an earlier driver that have not ended are handed out first; those after them are new,
    and `on_suggest` is told of each before Ray hears of it.

    How a trial goes does not arrive here: Ray tells a searcher the same of a trial that it stopped
    and of one that completed. The driver writes the ledger and applies its events to the study.

    Args:
        study: the study, with the ledger's events so far.
        on_suggest: called with the number and the values of each new trial.
        unfinished: the configurations of trials that have not ended, as Ray is to have them.
    """

    def __init__(
        self,
        study: SweepStudy,
        on_suggest: Callable[[int, Values], None],
        unfinished: Iterable[dict[str, Any]] = (),
    ) -> None:
        super().__init__()
        self._study = study
        self._on_suggest = on_suggest
        self._unfinished = deque(unfinished)

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        if self._unfinished:
            return self._unfinished.popleft()
        asked = self._study.ask()
        if asked is None:
            return str(self.FINISHED)
        number, values = asked
        self._on_suggest(number, values)
        return {**values, "trial": number}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        pass

    def save(self, checkpoint_path: str) -> None:
        """Nothing is saved with Ray: the ledger is the truth."""

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError("a sweep goes on from its ledger, see SweepStudy")

    def __getstate__(self) -> dict[str, Any]:
        # Ray pickles the searcher into its own folder, where nobody reads it; the driver's open
        # ledger behind `on_suggest` could not be pickled.
        return {}
