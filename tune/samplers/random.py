"""`random`: each value drawn independently."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tune.samplers.base import Sampler, trial_seed
from tune.space import Problem

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

__all__ = ["Random"]


class Random(Sampler):
    """Random search."""

    name = "random"

    def build(self, problem: Problem, number: int) -> BaseSampler:
        import optuna

        return optuna.samplers.RandomSampler(seed=trial_seed(problem.seed, number))

    def joint(
        self, problem: Problem, unconditional: Mapping[str, BaseDistribution]
    ) -> Mapping[str, BaseDistribution]:
        return {}
