"""`cmaes`: covariance matrix adaptation (Hansen and Ostermeier, 2001)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from magtkd.errors import SweepError
from tune.samplers.base import Sampler, trial_seed
from tune.space import FloatRange, IntRange, Problem

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

__all__ = ["CmaEs"]


class CmaEs(Sampler):
    """CMA-ES over the ranges; choices and conditional names are drawn at random."""

    name = "cmaes"
    learns_from_completed = True
    has_memory = True

    def check(self, problem: Problem) -> None:
        super().check(problem)
        if not any(
            isinstance(entry, FloatRange | IntRange) and len(entry.probes()) > 1
            for entry in problem.space.unconditional.values()
        ):
            raise SweepError(
                "search.sampler: cmaes searches float and int ranges without `when`, and the space "
                "has none; use tpe"
            )
        if len(problem.objectives) > 1:
            raise SweepError(
                f"search.sampler: cmaes takes one objective, not {len(problem.objectives)}; "
                "use tpe, gp or nsga2"
            )

    def build(self, problem: Problem, number: int) -> BaseSampler:
        import optuna

        seed = trial_seed(problem.seed, number)
        return optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)

    def joint(
        self, problem: Problem, unconditional: Mapping[str, BaseDistribution]
    ) -> Mapping[str, BaseDistribution]:
        from optuna.distributions import FloatDistribution, IntDistribution

        numbers = (FloatDistribution, IntDistribution)
        return {name: one for name, one in unconditional.items() if isinstance(one, numbers)}
