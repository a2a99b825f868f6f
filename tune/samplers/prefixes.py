"""The first stages of trials, which later trials may keep."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tune.space import Values

__all__ = ["Prefix", "Prefixes"]


@dataclass(frozen=True)
class Prefix:
    """What a trial that shares the first stages of another keeps of its values."""

    values: Values
    """Of own names, to the last bit: a value that went through its column may differ in that."""
    point: np.ndarray
    """[K] the same as `Columns` has them, the other names NaN."""


@dataclass
class Prefixes:
    """The distinct prefixes that trials share which keep certain names."""

    found: list[Prefix] = field(default_factory=list)
    trials: list[int] = field(default_factory=list)
    """Places of trials, in the order in which they began."""
    members: list[int] = field(default_factory=list)
    """Of each of these, the place of its prefix."""
    _places: dict[tuple[str, ...], int] = field(default_factory=dict)

    def add(self, trial: int, keys: tuple[str, ...], prefix: Prefix) -> None:
        if keys not in self._places:
            self._places[keys] = len(self.found)
            self.found.append(prefix)
        self.trials.append(trial)
        self.members.append(self._places[keys])
