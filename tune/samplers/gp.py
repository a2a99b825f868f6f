"""`gp`: a Gaussian process over the completed trials."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tune.samplers.base import Sampler, trial_seed
from tune.space import Problem

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

__all__ = ["GaussianProcess"]


class GaussianProcess(Sampler):
    """Bayesian optimisation with a Gaussian process."""

    name = "gp"

    def build(self, problem: Problem, number: int) -> BaseSampler:
        import optuna

        seed = trial_seed(problem.seed, number)
        return optuna.samplers.GPSampler(seed=seed, warn_independent_sampling=False)
