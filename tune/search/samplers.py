"""From a search space to Optuna: its distributions, and the sampler of each trial.

Each trial's sampler is built anew from the sweep's seed and the trial's number, so that a
suggestion follows from these and from what the study has been told.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from tune.config.ranges import Choice, Entry, FloatRange, IntRange
from tune.config.space import Space
from tune.config.sweep import Search, SweepConfig

__all__ = ["SAMPLERS_WITH_MEMORY", "JointSampler", "distributions", "make_sampler"]

SAMPLERS_WITH_MEMORY = {"qmc", "cmaes", "nsga2"}
"""Those that keep what they know in attributes of the study, which only asking them sets."""


def _distribution(entry: Entry) -> BaseDistribution:
    match entry:
        case Choice():
            return CategoricalDistribution(entry.values)
        case FloatRange():
            return FloatDistribution(entry.low, entry.high, log=entry.log, step=entry.step)
        case IntRange():
            return IntDistribution(entry.low, entry.high, log=entry.log, step=entry.step)
    raise AssertionError(f"no distribution for {entry}")


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """Optuna's distributions of a space's own names, tied ones left out."""
    return {name: _distribution(entry) for name, entry in space.entries}


class JointSampler(BaseSampler):
    """Another sampler, which draws the names that every trial has together from the first on.

    Optuna would infer these names from the finished trials: a sampler then knows nothing of the
    space at first, and takes a conditional name for one that all trials have until one lacks it.
    """

    def __init__(self, sampler: BaseSampler, joint: Mapping[str, BaseDistribution]) -> None:
        self._sampler = sampler
        self._joint = dict(joint)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self._joint

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self._sampler.before_trial(study, trial)

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        self._sampler.after_trial(study, trial, state, values)


def _seed_of(seed: int, number: int) -> int:
    """A seed for one trial, unrelated to those of its neighbours."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


def _optuna_sampler(search: Search, number: int) -> BaseSampler:
    seed = _seed_of(search.seed, number)
    match search.sampler:
        case "random" | "grid":
            return optuna.samplers.RandomSampler(seed=seed)
        case "qmc":
            # The scrambled sequence is one for the whole sweep; the number is the place in it.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                return optuna.samplers.QMCSampler(
                    scramble=True,
                    seed=search.seed,
                    independent_sampler=optuna.samplers.RandomSampler(seed=seed),
                    warn_independent_sampling=False,
                )
        case "tpe":
            return optuna.samplers.TPESampler(seed=seed)
        case "gp":
            return optuna.samplers.GPSampler(seed=seed, warn_independent_sampling=False)
        case "cmaes":
            return optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
        case "nsga2":
            # Optuna's 50 would leave a sweep of 40 trials in its first, random generation.
            population_size = min(50, max(4, search.num_trials // 5))
            return optuna.samplers.NSGAIISampler(seed=seed, population_size=population_size)


def make_sampler(sweep: SweepConfig, number: int) -> BaseSampler:
    """The sampler of one trial: all its randomness comes from the seed and the trial's number.

    A grid has no randomness: `SweepStudy` fixes its values, and its sampler is never asked.
    """
    joint = {
        name: distribution
        for name, distribution in distributions(sweep.search_space).items()
        if name in sweep.search_space.unconditional and not distribution.single()
    }
    match sweep.search.sampler:
        case "random" | "grid":
            joint = {}
        case "cmaes":
            numbers = (FloatDistribution, IntDistribution)
            joint = {name: one for name, one in joint.items() if isinstance(one, numbers)}
        # For several objectives Optuna's default draws each name on its own.
        case "tpe" if len(sweep.objective) > 1:
            joint = {}
    return JointSampler(_optuna_sampler(sweep.search, number), joint)
