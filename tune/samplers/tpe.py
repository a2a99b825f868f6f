"""`tpe`: tree-structured Parzen estimator (Bergstra et al., 2011)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tune.samplers.base import Sampler, trial_seed
from tune.space import Problem

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

__all__ = ["Tpe"]


class Tpe(Sampler):
    """Tree-structured Parzen estimator."""

    name = "tpe"

    def build(self, problem: Problem, number: int) -> BaseSampler:
        import optuna

        return optuna.samplers.TPESampler(seed=trial_seed(problem.seed, number))

    def joint(
        self, problem: Problem, unconditional: Mapping[str, BaseDistribution]
    ) -> Mapping[str, BaseDistribution]:
        # For several objectives Optuna's default draws each name on its own.
        return {} if len(problem.objectives) > 1 else unconditional
