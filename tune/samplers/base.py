"""What all samplers have in common.

A trial's Optuna sampler is built from the sweep's seed and the trial's number, so that a suggestion
follows from these and from the study's history alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Protocol

import msgspec
import numpy as np

from magtkd.errors import SweepError
from tune.space import Problem, Values

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

    from magtkd.pipeline import Plan

__all__ = ["EarlierTrial", "Sampler", "Search", "trial_seed"]


def trial_seed(seed: int, number: int) -> int:
    """A seed for one trial, unrelated to those of its neighbours."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


class EarlierTrial(msgspec.Struct, frozen=True):
    """A trial of an earlier sweep whose values are in this sweep's space."""

    values: Values
    curve: dict[int, float]
    """This sweep's objective by epoch, from 1."""


class Search(Protocol):
    """What chooses the values of trials where that is no sampler of Optuna's; see
    `tune.samplers.cost_aware.CostAwareSearch`."""

    def add_stored(self, keys: Iterable[str]) -> None: ...

    def learn(self, trials: Sequence[EarlierTrial], *, is_same: bool) -> None: ...

    def begin(self, number: int, values: Values) -> None: ...

    def report(self, number: int, epoch: int, value: float) -> None: ...

    def end(self, number: int, *, has_failed: bool = False) -> None: ...

    def ask(self, number: int, used: float) -> Values: ...


class Sampler:
    """How the next trial's values are chosen."""

    name: ClassVar[str]
    """As `search.sampler` names it."""
    has_memory: ClassVar[bool] = False
    """Whether it keeps its state in attributes of the study, which only asking it sets: a replay
    then has to ask it for each trial, though the values are known."""

    needs_num_trials: ClassVar[str] = ""
    """What it takes from the number of trials, which is then given and never changes, as the words
    before that; empty where it needs no number."""

    shares_stages: ClassVar[bool] = False
    """Whether it keeps the values of early stages for several trials by itself."""

    reads_knowledge: ClassVar[bool] = False
    """Whether it reads what is known beforehand: priors and earlier sweeps."""

    learns_from_completed: ClassVar[bool] = False
    """Whether it learns from completed trials alone: beside a scheduler that stops most of them it
    would be random search."""

    def check(self, problem: Problem) -> None:
        """Check that it can search this problem.

        Raises:
            SweepError: one line with the place, the value and the way out.
        """
        if not problem.space:
            raise SweepError(
                f"space: it is empty, so sampler {self.name!r} has nothing to choose; name values "
                "to search, or use sampler 'grid', which runs the configuration once"
            )

    def points(self, problem: Problem) -> list[Values] | None:
        """The values of all trials, where these are known beforehand; else None."""
        return None

    def search(
        self,
        problem: Problem,
        plan: Callable[[Values], Plan],
        seconds: Callable[[str, Values], float],
    ) -> Search | None:
        """What chooses the values where that is no sampler of Optuna's.

        Args:
            problem: what is searched.
            plan: the stages of a trial with some values, and their keys.
            seconds: what training a stage takes, by its name and a trial's values.
        """
        return None

    def build(self, problem: Problem, number: int) -> BaseSampler:
        """Optuna's sampler of one trial, where there is no `search`.

        Args:
            problem: what is searched.
            number: the trial's number.
        """
        raise NotImplementedError

    def joint(
        self, problem: Problem, unconditional: Mapping[str, BaseDistribution]
    ) -> Mapping[str, BaseDistribution]:
        """The names that are drawn together from the first trial on.

        Args:
            problem: what is searched.
            unconditional: distributions of the names that every trial has, and that have more than
                one value.
        """
        return unconditional
