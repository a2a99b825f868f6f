"""What samplers and schedulers know of a sweep."""

from __future__ import annotations

from dataclasses import dataclass

from magtkd.config import Config
from tune.space.objective import Objective
from tune.space.space import Space, Values

__all__ = ["Problem"]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A search problem: the space around a base configuration, the objectives, and the budget."""

    space: Space
    base: Config
    """The plain configuration that the sweep varies."""
    objectives: tuple[Objective, ...]
    num_trials: int | None
    """Trials that there will be at most; None where only the budget's hours end the sweep."""
    max_concurrent: int
    seed: int
    start: tuple[Values, ...] = ()
    """The values of the first trials, before the sampler chooses; they need not be in the space."""

    @property
    def max_epochs(self) -> int:
        """The most epochs that a trial's fusion may have."""
        owner = self.space.owner("fusion.epochs")
        if owner is None:
            return self.base.fusion.epochs
        _, entry = owner
        largest = max(int(value) for value in entry.probes() if value is not None)
        return max(largest, self.base.fusion.epochs) if entry.when else largest
