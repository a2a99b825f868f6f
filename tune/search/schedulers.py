"""The scheduler: which trials Ray Tune stops early, or lets go on from others.

Results carry `epoch` and the metrics by name. A result whose `done` is true ends its trial before
a scheduler is asked, so a last result may lack metrics, as that of a trial that diverged does.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple

import ray.tune.schedulers as ray_schedulers

from tune.config.ranges import Entry, Scalar
from tune.config.sweep import SweepConfig, max_epochs
from tune.ledger.state import Event

__all__ = ["make_scheduler", "replay"]


class _FiniteMetric:
    """Ends a trial whose metric is not finite, and keeps such a trial out of the comparison.

    Ray's schedulers would let it go on, as nothing is less than NaN, and some fail where the last
    result lacks the metric. Comes before the scheduler among the bases.
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


class _Resumable(_FiniteMetric):
    """Knows trials by their numbers instead of Ray's objects, so that the reports that an earlier
    driver heard count, each once. Comes before the scheduler among the bases."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._known: dict[int, _Known] = {}
        self._epochs: dict[int, int] = {}

    def on_trial_add(self, controller: Any, trial: Any) -> None:
        number = trial.config["trial"]
        if number not in self._known:
            self._known[number], self._epochs[number] = _Known(f"trial-{number}"), 0
            super().on_trial_add(controller, self._known[number])  # type: ignore[misc]

    def on_trial_result(self, controller: Any, trial: Any, result: dict[str, Any]) -> str:
        number = trial.config["trial"]
        if self._is_old(number, result):
            return str(ray_schedulers.TrialScheduler.CONTINUE)
        return super().on_trial_result(controller, self._known[number], result)

    def on_trial_complete(self, controller: Any, trial: Any, result: dict[str, Any]) -> None:
        number = trial.config["trial"]
        # Ray tells the last report of a trial that it stopped a second time.
        if not self._is_old(number, result):
            super().on_trial_complete(controller, self._known[number], result)

    def on_trial_remove(self, controller: Any, trial: Any) -> None:
        """Nothing: what a trial reported counts after its end."""

    def _is_old(self, number: int, result: Mapping[str, Any]) -> bool:
        epoch, known = int(result["epoch"]), self._epochs[number]
        self._epochs[number] = max(epoch, known)
        return 0 < epoch <= known


class Asha(_Resumable, ray_schedulers.AsyncHyperBandScheduler):  # type: ignore[misc]
    """Asynchronous successive halving (arXiv 1810.05934)."""


class HyperBand(_FiniteMetric, ray_schedulers.HyperBandScheduler):  # type: ignore[misc]
    """HyperBand (arXiv 1603.06560)."""


class MedianStopping(_Resumable, ray_schedulers.MedianStoppingRule):  # type: ignore[misc]
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
        config = source.config | {"trial": trial.config["trial"]}
        config.pop("past", None)
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
        shift = draw.choice((-1, 1))
        index = min(max(points.index(entry.clip(value)) + shift, 0), len(points) - 1)
        return points[index], f"shift {shift:+d}"


def replay(scheduler: Any, events: Iterable[Event]) -> list[int]:
    """Tell a new scheduler what an earlier driver's heard, in the order of the ledger.

    Population based training and HyperBand start again from the trials that have not ended.

    Returns:
        trials whose last report ended them, though the ledger does not say so: the driver was
        killed in between.
    """
    if not isinstance(scheduler, _Resumable):
        return []
    running: dict[int, str] = {}
    for event in events:
        number = event.get("trial", -1)
        trial = SimpleNamespace(config={"trial": number})
        match event["kind"]:
            case "trial_suggested":
                scheduler.on_trial_add(None, trial)
                running[number] = ray_schedulers.TrialScheduler.CONTINUE
            case "trial_report" if number in running:
                result = {**event["metrics"], "epoch": event["epoch"]}
                decision = scheduler.on_trial_result(None, trial, result)
                if decision == ray_schedulers.TrialScheduler.STOP:
                    running[number] = decision
            case "trial_ended":
                running.pop(number, None)
    stop = ray_schedulers.TrialScheduler.STOP
    return [number for number, decision in running.items() if decision == stop]


def make_scheduler(sweep: SweepConfig) -> Any:
    """Ray Tune's scheduler of a sweep, which `check_sweep` has passed.

    Metric and mode are its own: a `TuneConfig` beside it must not name them again.
    """
    scheduler, first = sweep.scheduler, sweep.objective[0]
    shared: dict[str, Any] = {"time_attr": "epoch", "metric": first.metric, "mode": first.mode}
    match scheduler.kind:
        case "fifo":
            return ray_schedulers.FIFOScheduler()
        case "asha":
            return Asha(
                max_t=max_epochs(sweep),
                grace_period=scheduler.grace_period,
                reduction_factor=scheduler.reduction_factor,
                **shared,
            )
        case "hyperband":
            return HyperBand(
                max_t=max_epochs(sweep), reduction_factor=scheduler.reduction_factor, **shared
            )
        case "median":
            return MedianStopping(
                grace_period=scheduler.grace_period,
                min_samples_required=scheduler.min_samples,
                # Never pause a trial for want of samples: others do not wait for its resources.
                min_time_slice=math.inf,
                **shared,
            )
        case "pbt":
            return PopulationBased(
                dict(sweep.search_space.entries),
                sweep.search.seed,
                perturbation_interval=scheduler.perturbation_interval,
                quantile_fraction=scheduler.quantile_fraction,
                resample_probability=scheduler.resample_probability,
                **shared,
            )
