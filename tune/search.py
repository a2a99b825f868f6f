"""The searcher: what Ray Tune asks for the next trial."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import ray.tune.search as ray_search

from tune.samplers import make_sampler
from tune.space import Values
from tune.study import SweepStudy, study_of

__all__ = ["OptunaSearcher", "SweepStudy", "make_sampler", "study_of"]


class OptunaSearcher(ray_search.Searcher):  # type: ignore[misc]
    """What Ray Tune asks for the next trial.

    A trial's configuration in Ray is flat: its values by dotted name, and its number as `trial`.
    Trials that the study has as running are handed out again first, with their numbers; those
    after them are new, and `on_suggest` is told of each before Ray hears of it.

    How a trial goes does not arrive here: Ray tells a searcher the same of a trial that it stopped
    and of one that completed. The driver writes the ledger and applies its events to the study.

    Args:
        study: the study, with the ledger's events so far.
        on_suggest: called with the number and the values of each new trial.
    """

    def __init__(self, study: SweepStudy, on_suggest: Callable[[int, Values], None]) -> None:
        super().__init__()
        self._study = study
        self._on_suggest = on_suggest
        self._unfinished = deque(study.running.items())
        self.numbers: dict[str, int] = {}
        """The trial number of each of Ray's trial ids."""

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        if self._unfinished:
            number, values = self._unfinished.popleft()
        else:
            asked = self._study.ask()
            if asked is None:
                return str(self.FINISHED)
            number, values = asked
            self._on_suggest(number, values)
        self.numbers[trial_id] = number
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
