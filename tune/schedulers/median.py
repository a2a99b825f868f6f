"""`median`: the median stopping rule (Golovin et al., 2017)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

from tune.schedulers.base import Positive, SchedulerSection, check_grace, ray_options
from tune.space import Problem

__all__ = ["Median"]


class Median(SchedulerSection):
    """Stops trials that are worse than the median of the others."""

    kind: Literal["median"] = "median"
    """Which scheduler it is."""
    grace_period: Positive = 1
    """No trial is stopped before this epoch."""
    min_samples: Positive = 3
    """Trials that must have come as far before one is stopped."""

    def check(self, problem: Problem) -> None:
        super().check(problem)
        check_grace(self.grace_period, problem)

    def decides_after(self, problem: Problem) -> Sequence[int]:
        return range(self.grace_period, problem.max_epochs + 1)

    def build(self, problem: Problem) -> Any:
        from tune.schedulers.on_ray import MedianStopping

        return MedianStopping(
            grace_period=self.grace_period,
            min_samples_required=self.min_samples,
            # Never pause a trial for lack of samples: others do not wait for its resources.
            min_time_slice=math.inf,
            **ray_options(problem),
        )
