"""A searched name of a sweep, and where its values are on an axis.

The names are those of the space; tied names go with the first.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tune.redact import redact
from tune.report.charts import Axis, Floats
from tune.report.subject import MOST_SHOWN, Subject
from tune.space import Choice, Entry, IntRange, Scalar

__all__ = ["Knob", "knobs_of"]

MOST_TICKS = 10
GOLDEN = (5**0.5 - 1) / 2  # whose multiples fill an interval evenly


@dataclass(frozen=True)
class Knob:
    """A searched name, and where its values are on an axis."""

    name: str
    entry: Entry

    @property
    def is_log(self) -> bool:
        """Whether the space has it on a logarithmic scale."""
        return not isinstance(self.entry, Choice) and bool(getattr(self.entry, "log", False))

    @property
    def words(self) -> tuple[str, ...]:
        """The values of a choice in the order of the axis: numbers by size; else none."""
        return tuple(_word(value) for value in self._choices)

    @property
    def _choices(self) -> tuple[Scalar, ...]:
        if not isinstance(self.entry, Choice):
            return ()
        values = self.entry.values
        is_number = all(
            isinstance(one, int | float) and not isinstance(one, bool) for one in values
        )
        return tuple(sorted(values, key=float)) if is_number else values  # type: ignore[arg-type]

    def position(self, value: Scalar) -> float:
        """Where a value is on the axis; NaN where it has no place there."""
        if isinstance(self.entry, Choice):
            places = [place for place, one in enumerate(self._choices) if one == value]
            return float(places[0]) if places else math.nan
        is_number = isinstance(value, int | float) and abs(value) < MOST_SHOWN
        return float(value) if is_number else math.nan  # type: ignore[arg-type]

    @property
    def ends(self) -> tuple[float, float]:
        """The ends of the axis."""
        if isinstance(self.entry, Choice):
            return 0.0, max(1.0, float(len(self.entry.values) - 1))
        probes = [float(value) for value in self.entry.probes() if isinstance(value, int | float)]
        return min(probes), max(probes)

    def share(self, position: float) -> float:
        """A position as a share of the axis, from 0 to 1, where it is in the range."""
        low, high = self.ends
        if self.is_log and position > 0:
            low, high, position = math.log(low), math.log(high), math.log(position)
        return (position - low) / (high - low) if high > low else 0.5

    def spread(self, numbers: Sequence[int]) -> Floats:
        """How far each trial's point is moved, so that those of one choice are not on each other:
        at most a quarter of the way to the next."""
        if not self.words:
            return np.zeros(len(numbers))
        return 0.5 * ((np.array(numbers) * GOLDEN) % 1 - 0.5)

    @property
    def axis(self) -> Axis:
        """The axis of its values."""
        ends = (-0.5, len(self.words) - 0.5) if self.words else None
        ticks = [(float(place), word) for place, word in enumerate(self.words)]
        if isinstance(self.entry, IntRange) and len(self.entry.points()) <= MOST_TICKS:
            ticks = [(float(value), str(value)) for value in self.entry.points()]
        return Axis(title=self.name, log=self.is_log, ticks=tuple(ticks), range=ends)


def _word(value: Scalar) -> str:
    if isinstance(value, str):
        value = redact(value)
        return value if len(value) <= 24 else f"{value[:23]}…"
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value)


def knobs_of(subject: Subject) -> list[Knob]:
    """The searched names of a sweep, in the order of its file."""
    return [Knob(name, entry) for name, entry in subject.state.sweep.search_space.entries]
