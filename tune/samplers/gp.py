"""`gp`: a Gaussian process over the completed trials, at most `MOST_TRIALS` of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tune.samplers.base import Sampler, trial_seed
from tune.space import Problem

if TYPE_CHECKING:
    from optuna import Study
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

__all__ = ["MOST_TRIALS", "GaussianProcess"]

MOST_TRIALS = 200
"""A process over n trials takes time of n^3, and the driver's loop waits for it."""


class GaussianProcess(Sampler):
    """Bayesian optimisation with a Gaussian process."""

    name = "gp"
    learns_from_completed = True

    def build(self, problem: Problem, number: int) -> BaseSampler:
        import optuna
        from optuna.study import StudyDirection

        class Bounded(optuna.samplers.GPSampler):
            def _sample_relative_impl(
                self, study: Study, completed: list[FrozenTrial], *others: Any
            ) -> dict[str, Any]:
                signs = [1 if one == StudyDirection.MAXIMIZE else -1 for one in study.directions]
                return super()._sample_relative_impl(study, _bounded(completed, signs), *others)

        seed = trial_seed(problem.seed, number)
        return Bounded(seed=seed, warn_independent_sampling=False)


def _bounded(completed: list[FrozenTrial], signs: Sequence[int]) -> list[FrozenTrial]:
    """The latest `MOST_TRIALS` trials; the best in place of the older half of them, where there is
    one objective."""
    if len(completed) <= MOST_TRIALS:
        return completed
    if len(signs) > 1:
        return completed[-MOST_TRIALS:]
    half = MOST_TRIALS // 2
    older, latest = completed[:-half], completed[-half:]
    older = sorted(older, key=lambda trial: -signs[0] * (trial.value or 0.0))[:half]
    return sorted(older, key=lambda trial: trial.number) + latest
