"""From a search space to Optuna: its distributions, and the sampler of each trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from tune.samplers import Sampler
from tune.space import Choice, Entry, FloatRange, IntRange, Problem, Space

__all__ = ["JointSampler", "distributions", "make_sampler"]


def _distribution(entry: Entry) -> BaseDistribution:
    match entry:
        case Choice():
            return CategoricalDistribution(entry.values)
        case FloatRange():
            return FloatDistribution(entry.low, entry.high, log=entry.log, step=entry.step)
        case IntRange():
            return IntDistribution(entry.low, entry.high, log=entry.log, step=entry.step)
    raise AssertionError(f"no distribution for {entry}")


def _as_written(value: Any, distribution: BaseDistribution) -> Any:
    if isinstance(distribution, FloatDistribution) and distribution.step is not None:
        stepped = FloatRange(distribution.low, distribution.high, step=distribution.step)
        return stepped.clip(value)
    return value


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """Optuna's distributions of a space's own names, tied ones left out."""
    return {name: _distribution(entry) for name, entry in space.entries}


class JointSampler(BaseSampler):
    """Another sampler, which draws the names that every trial has together from the first on.

    Optuna would infer these names from the finished trials: a sampler then knows nothing of the
    space at first, and takes a conditional name for one that all trials have until one lacks it.

    Values of a stepped range become those that were written: Optuna's are sums of floats, such as
    0.30000000000000004.
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
        found = self._sampler.sample_relative(study, trial, search_space)
        return {name: _as_written(value, search_space[name]) for name, value in found.items()}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        found = self._sampler.sample_independent(study, trial, param_name, param_distribution)
        return _as_written(found, param_distribution)

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


def make_sampler(sampler: Sampler, problem: Problem, number: int) -> JointSampler:
    """Optuna's sampler of one trial; all its randomness comes from the seed and the number."""
    unconditional = {
        name: distribution
        for name, distribution in distributions(problem.space).items()
        if name in problem.space.unconditional and not distribution.single()
    }
    return JointSampler(sampler.build(problem, number), sampler.joint(problem, unconditional))
