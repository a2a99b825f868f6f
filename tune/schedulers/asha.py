"""`asha`: asynchronous successive halving (arXiv 1810.05934)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from tune.schedulers.base import Positive, SchedulerSection, check_grace, ray_options
from tune.space import Problem

__all__ = ["Asha"]


class Asha(SchedulerSection):
    """Asynchronous successive halving."""

    kind: Literal["asha"] = "asha"
    """Which scheduler it is."""
    grace_period: Positive = 1
    """No trial is stopped before this epoch."""
    reduction_factor: Annotated[float, Field(gt=1, le=10_000, allow_inf_nan=False)] = 3
    """One in so many trials continues at each rung."""

    def check(self, problem: Problem) -> None:
        super().check(problem)
        check_grace(self.grace_period, problem)

    def decides_after(self, problem: Problem) -> Sequence[int]:
        # As Ray computes its rungs, which need not be whole; it may have one less than these.
        rungs = (self.grace_period * self.reduction_factor**k for k in itertools.count())
        within = itertools.takewhile(lambda rung: rung <= problem.max_epochs, rungs)
        return tuple(sorted({math.ceil(rung) for rung in within} | {problem.max_epochs}))

    def build(self, problem: Problem) -> Any:
        from tune.schedulers.on_ray import Asha as RayAsha

        return RayAsha(
            max_t=problem.max_epochs,
            grace_period=self.grace_period,
            reduction_factor=self.reduction_factor,
            **ray_options(problem),
        )
