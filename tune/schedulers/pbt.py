"""`pbt`: population based training (arXiv 1711.09846)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from magtkd.config import FusionConfig
from magtkd.errors import SweepError
from tune.schedulers.base import Positive, SchedulerSection, check_concurrent, ray_options
from tune.space import Problem

__all__ = ["PopulationBased"]


class PopulationBased(SchedulerSection):
    """Poor trials copy good ones and perturb their values (Jaderberg et al., 2017)."""

    needs_num_trials = "its population is"

    kind: Literal["pbt"] = "pbt"
    """Which scheduler it is."""
    perturbation_interval: Positive = 3
    """Epochs between two perturbations."""
    quantile_fraction: Annotated[float, Field(gt=0, le=0.5)] = 0.25
    """The fraction of trials that copy, and of those that are copied."""
    resample_probability: Annotated[float, Field(ge=0, le=1)] = 0.25
    """Probability of resampling a value instead of perturbing it."""

    @property
    def stops_trials(self) -> bool:
        return False

    @property
    def shares_sessions(self) -> bool:
        return True

    def check(self, problem: Problem) -> None:
        super().check(problem)
        assert problem.num_trials is not None, "the sweep's check asks for it"
        if problem.num_trials < 2:
            raise SweepError("search.num_trials: scheduler pbt needs a population of at least 2")
        if self.perturbation_interval >= problem.max_epochs:
            raise SweepError(
                f"scheduler.perturbation_interval: {self.perturbation_interval} leaves no exchange "
                f"within the {problem.max_epochs} epochs of fusion; lower it"
            )
        changeable = [f"fusion.{name}" for name in FusionConfig.CHANGEABLE]
        for name, entry in problem.space.entries:
            if name not in changeable:
                raise SweepError(
                    f"space: {name}: scheduler pbt changes values during training, and this one "
                    f"cannot change; it can search {', '.join(changeable)}"
                )
            if entry.tie or entry.when:
                raise SweepError(
                    f"space: {name}: scheduler pbt takes no `tie` and no `when`; drop them"
                )
        if not problem.space:
            raise SweepError("space: it is empty, and scheduler pbt has nothing to change")
        check_concurrent(self.kind, problem, problem.num_trials)

    def build(self, problem: Problem) -> Any:
        from tune.schedulers.on_ray import PopulationBased as RayPopulationBased

        return RayPopulationBased(
            dict(problem.space.entries),
            problem.seed,
            perturbation_interval=self.perturbation_interval,
            quantile_fraction=self.quantile_fraction,
            resample_probability=self.resample_probability,
            **ray_options(problem),
        )
