"""`grid`: all points of a finite space, in order."""

from __future__ import annotations

import itertools

from magtkd.errors import SweepError
from tune.samplers.random import Random
from tune.space import Problem, Values

__all__ = ["Grid"]


class Grid(Random):
    """Grid search, upstream names varying slowest. Its values are fixed: nothing is ever drawn."""

    name = "grid"

    def check(self, problem: Problem) -> None:
        for name, entry in problem.space.entries:
            if entry.points() is None:
                raise SweepError(
                    f"space: {name}: a grid needs a finite range; give it a step, write a choice, "
                    "or use sampler 'qmc'"
                )

    def points(self, problem: Problem) -> list[Values]:
        every = problem.space.points(problem.base)
        return list(itertools.islice(every, problem.num_trials))
