"""`hyperband`: several brackets of successive halving (arXiv 1603.06560)."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field

from tune.schedulers.base import SchedulerSection, check_concurrent, ray_options
from tune.space import Problem

__all__ = ["HyperBand"]


class HyperBand(SchedulerSection):
    """HyperBand; trials wait for each other at each rung."""

    kind: Literal["hyperband"] = "hyperband"
    """Which scheduler it is."""
    reduction_factor: Annotated[float, Field(gt=1, le=10_000, allow_inf_nan=False)] = 3
    """One in so many trials continues at each rung."""

    def bracket_sizes(self, max_epochs: int) -> tuple[int, ...]:
        """The trials in each bracket of one band, as Ray rounds."""
        factor = self.reduction_factor
        num_brackets = round(math.log(max_epochs) / math.log(factor)) + 1
        return tuple(
            math.ceil(num_brackets / (halvings + 1) * factor**halvings)
            for halvings in range(num_brackets)
            if int(max_epochs * factor**-halvings) > 0
        )

    def check(self, problem: Problem) -> None:
        super().check(problem)
        band = sum(self.bracket_sizes(problem.max_epochs))
        check_concurrent(self.kind, problem, min(problem.num_trials or band, band))

    def build(self, problem: Problem) -> Any:
        from tune.schedulers.on_ray import HyperBand as RayHyperBand

        return RayHyperBand(
            max_t=problem.max_epochs,
            reduction_factor=self.reduction_factor,
            **ray_options(problem),
        )
