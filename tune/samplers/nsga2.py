"""`nsga2`: a genetic algorithm for several objectives (Deb et al., 2002)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tune.samplers.base import Sampler, trial_seed
from tune.space import Problem

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

__all__ = ["Nsga2"]


class Nsga2(Sampler):
    """NSGA-II, whose population is a fifth of the trials: Optuna's 50 would leave a sweep of 40
    trials in its first, random generation."""

    name = "nsga2"
    learns_from_completed = True
    has_memory = True
    needs_num_trials = "its population is a fifth of"

    def build(self, problem: Problem, number: int) -> BaseSampler:
        import optuna

        assert problem.num_trials is not None, "the sweep's check asks for it"
        population_size = min(50, max(4, problem.num_trials // 5))
        return optuna.samplers.NSGAIISampler(
            seed=trial_seed(problem.seed, number), population_size=population_size
        )
