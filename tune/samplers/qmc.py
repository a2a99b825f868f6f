"""`qmc`: a quasi-random sequence that covers the space evenly."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from tune.samplers.base import Sampler, trial_seed
from tune.space import Problem

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

__all__ = ["QuasiMonteCarlo"]


class QuasiMonteCarlo(Sampler):
    """A scrambled Sobol sequence."""

    name = "qmc"
    has_memory = True

    def build(self, problem: Problem, number: int) -> BaseSampler:
        import optuna
        from optuna.exceptions import ExperimentalWarning

        random = optuna.samplers.RandomSampler(seed=trial_seed(problem.seed, number))
        # The scrambled sequence is one for the whole sweep; the number is the place in it.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return optuna.samplers.QMCSampler(
                scramble=True,
                seed=problem.seed,
                independent_sampler=random,
                warn_independent_sampling=False,
            )
