"""Ray Tune's schedulers, where they need help: with metrics that are not finite, sweeps that are
resumed, and population based training within the search space.

Results carry `epoch` and the metrics by name. A result whose `done` is true ends its trial before
a scheduler is asked, so a last result may lack metrics, as that of a trial that diverged does.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple

import ray.tune.schedulers as ray_schedulers

from tune.space import Assignment, Entry, Scalar

__all__ = ["Asha", "HyperBand", "MedianStopping", "PopulationBased", "Resumable"]


class _FiniteMetric:
    """Ends a trial whose metric is not finite, and keeps such a trial out of the comparison.

    Ray's schedulers would let it continue, as nothing is less than NaN, and some fail where the
    last result lacks the metric. Comes before the scheduler among the bases.
    """

    metric: str

    def on_trial_result(self, controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if not self._is_finite(result):
            return str(ray_schedulers.TrialScheduler.STOP)
        return str(super().on_trial_result(controller, trial, result))  # type: ignore[misc]

    def on_trial_complete(self, controller: Any, trial: Any, result: dict[str, Any]) -> None:
        if self._is_finite(result):
            super().on_trial_complete(controller, trial, result)  # type: ignore[misc]
        else:
            super().on_trial_remove(controller, trial)  # type: ignore[misc]

    def _is_finite(self, result: dict[str, Any]) -> bool:
        value = result.get(self.metric)
        return value is not None and math.isfinite(value)


class _Known(NamedTuple):
    """A trial, as one of Ray's schedulers has to know it."""

    trial_id: str


class Resumable(_FiniteMetric):
    """Knows trials by their numbers instead of Ray's objects, so that the reports that an earlier
    driver received count, each once. Comes before the scheduler among the bases."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._known: dict[int, _Known] = {}
        self._epochs: dict[int, int] = {}

    def on_trial_add(self, controller: Any, trial: Any) -> None:
        number = trial.config[Assignment.NUMBER]
        if number not in self._known:
            self._known[number], self._epochs[number] = _Known(f"trial-{number}"), 0
            super().on_trial_add(controller, self._known[number])  # type: ignore[misc]

    def on_trial_result(self, controller: Any, trial: Any, result: dict[str, Any]) -> str:
        number = trial.config[Assignment.NUMBER]
        if self._is_old(number, result):
            return str(ray_schedulers.TrialScheduler.CONTINUE)
        return super().on_trial_result(controller, self._known[number], result)

    def on_trial_complete(self, controller: Any, trial: Any, result: dict[str, Any]) -> None:
        number = trial.config[Assignment.NUMBER]
        # Ray passes the last report of a trial that it stopped a second time.
        if not self._is_old(number, result):
            super().on_trial_complete(controller, self._known[number], result)

    def on_trial_remove(self, controller: Any, trial: Any) -> None:
        """Nothing: what a trial reported counts after its end."""

    def _is_old(self, number: int, result: Mapping[str, Any]) -> bool:
        epoch, known = int(result["epoch"]), self._epochs[number]
        self._epochs[number] = max(epoch, known)
        return 0 < epoch <= known


class Asha(Resumable, ray_schedulers.AsyncHyperBandScheduler):  # type: ignore[misc]
    """Asynchronous successive halving (arXiv 1810.05934)."""


class HyperBand(_FiniteMetric, ray_schedulers.HyperBandScheduler):  # type: ignore[misc]
    """HyperBand (arXiv 1603.06560)."""


class MedianStopping(Resumable, ray_schedulers.MedianStoppingRule):  # type: ignore[misc]
    """Stops trials that are worse than the median of the others."""


class PopulationBased(_FiniteMetric, ray_schedulers.PopulationBasedTraining):  # type: ignore[misc]
    """Population based training (arXiv 1711.09846) within the ranges of the search space.

    Args:
        entries: what is searched, by name.
        seed: seed of the changed values; which trial is copied is up to Ray.
        options: as for Ray's scheduler.
    """

    def __init__(self, entries: dict[str, Entry], seed: int, **options: Any) -> None:
        self._entries = entries
        self._generator = random.Random(seed)
        # Ray only reads the names from here, see _get_new_config.
        super().__init__(
            hyperparam_mutations={name: list(entry.probes()) for name, entry in entries.items()},
            log_config=False,
            **options,
        )

    def on_trial_add(self, controller: Any, trial: Any) -> None:
        # Ray refuses every searcher here, as most wait for results that a population never gives.
        super().on_trial_add(SimpleNamespace(search_alg=None), trial)

    def _get_new_config(self, trial: Any, source: Any) -> tuple[dict[str, Any], dict[str, str]]:
        # Ray's own would leave the ranges and give the trial the number of the one it copies.
        config = source.config | {Assignment.NUMBER: trial.config[Assignment.NUMBER]}
        config.pop(Assignment.PAST, None)
        operations = {}
        for name, entry in self._entries.items():
            config[name], operations[name] = self._explore(entry, config[name])
        return config, operations

    def _explore(self, entry: Entry, value: Any) -> tuple[Scalar, str]:
        draw = self._generator
        if draw.random() < self._resample_probability:
            return entry.resample(draw), "resample"
        points = entry.points()
        if points is None:
            factor = draw.choice(self._perturbation_factors)
            return entry.clip(value * factor), f"* {factor}"
        if entry.clip(value) not in points:  # the configuration's own, outside the space
            return entry.resample(draw), "resample"
        shift = draw.choice((-1, 1))
        index = min(max(points.index(entry.clip(value)) + shift, 0), len(points) - 1)
        return points[index], f"shift {shift:+d}"
