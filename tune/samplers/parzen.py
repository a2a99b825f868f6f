"""Parzen estimators over a search space: densities that can be drawn from, also with values given.

A space's own names are columns: a range is mapped to [0, 1], on its logarithmic scale where it has
one, a choice to the index of its value; a name that a trial does not have is NaN.

Shapes: N observations, M points, K names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.special import logsumexp, ndtr, ndtri

from tune.space import Choice, Entry, FloatRange, IntRange, Scalar, Space, Values

__all__ = ["Columns", "Parzen"]

BANDWIDTH = 0.2
"""Of a kernel in [0, 1] where there is one observation; Optuna's for several names together."""
MOST_KERNELS = 1000
"""The latest so many observations are in a density, so that its cost is bounded."""


class Columns:
    """The columns of a space."""

    def __init__(self, space: Space) -> None:
        self.names = tuple(name for name, _ in space.entries)
        self._entries = dict(space.entries)
        self.num_choices = np.array(
            [len(entry.values) if isinstance(entry, Choice) else 0 for _, entry in space.entries],
            dtype=int,
        )
        """[K] values of a choice; 0 for a range."""

    def encode(self, values: Mapping[str, Scalar]) -> np.ndarray:
        """[K] a trial's values; those outside a range are at its end, others that the space does
        not have are NaN."""
        return np.array(
            [
                _encode(entry, values[name]) if name in values else math.nan
                for name, entry in self._entries.items()
            ]
        )

    def decode(self, point: np.ndarray) -> Values:
        """The values of a point [K], those of conditional names included."""
        pairs = zip(self._entries.items(), point.tolist(), strict=True)
        return {name: _decode(entry, one) for (name, entry), one in pairs}


def _bounds(entry: FloatRange | IntRange) -> tuple[float, float]:
    """The ends of a range on its scale; those of a stepped one half a step further out, so that all
    its values are equally wide."""
    low, high = float(entry.low), float(entry.high)
    if entry.step is not None:
        low, high = low - entry.step / 2, high + entry.step / 2
    return (math.log(low), math.log(high)) if entry.log else (low, high)


def _encode(entry: Entry, value: Any) -> float:
    if isinstance(entry, Choice):
        return float(entry.values.index(value)) if entry.contains(value) else math.nan
    assert isinstance(entry, FloatRange | IntRange)
    if not isinstance(value, int | float):
        return math.nan
    low, high = _bounds(entry)
    place = math.log(max(value, entry.low)) if entry.log else float(value)
    return min(max((place - low) / (high - low), 0.0), 1.0) if high > low else 0.5


def _decode(entry: Entry, place: float) -> Scalar:
    if isinstance(entry, Choice):
        return entry.values[int(place)]
    assert isinstance(entry, FloatRange | IntRange)
    low, high = _bounds(entry)
    value = low + place * (high - low)
    value = math.exp(value) if entry.log else value
    if isinstance(entry, FloatRange):
        return entry.clip(value)
    points = entry.points()
    return points[min(max(round((value - entry.low) / entry.step), 0), len(points) - 1)]


class Parzen:
    """A mixture of one kernel for each observation and a uniform one, all of equal weight.

    A kernel is a product over the names (Falkner et al., 2018, as in Optuna's multivariate TPE): a
    normal distribution cut to [0, 1] for a range, the observed value with some weight for the
    others for a choice. Where an observation lacks a name, its kernel is uniform there.

    Args:
        points: [N, K] observations; the latest `MOST_KERNELS` count.
        num_choices: [K] see `Columns`.
    """

    def __init__(self, points: np.ndarray, num_choices: np.ndarray) -> None:
        self._points = points[-MOST_KERNELS:]
        self._num_choices = num_choices
        number, width = self._points.shape
        narrowest = 1 / (1 + min(100, number + 1))
        self._width = max(BANDWIDTH * max(number, 1) ** (-1 / (width + 4)), narrowest)

    def log_density(self, points: np.ndarray) -> np.ndarray:
        """[M] of points [M, K]; a name that a point lacks does not count."""
        return np.asarray(logsumexp(self._log_kernels(points), axis=1)) - math.log(
            len(self._points) + 1
        )

    def sample(self, generator: np.random.Generator, given: np.ndarray, size: int) -> np.ndarray:
        """[size, K] points with the values of `given` [K], where these are not NaN; all names have
        a value."""
        weights = self._log_kernels(given[None])[0]
        weights = np.exp(weights - logsumexp(weights))
        chosen = generator.choice(len(weights), size=size, p=weights / weights.sum())
        uniform = np.full((1, len(given)), math.nan)
        centres = np.concatenate([self._points, uniform])[chosen]
        drawn = np.where(np.isnan(given), math.nan, given) * np.ones((size, 1))
        for column in np.flatnonzero(np.isnan(given)).tolist():
            drawn[:, column] = self._draw(generator, centres[:, column], column)
        return drawn

    def _draw(self, generator: np.random.Generator, centres: np.ndarray, column: int) -> np.ndarray:
        """[size] values of a name from kernels at the centres [size]."""
        number = int(self._num_choices[column])
        share = generator.random(len(centres))
        if number:
            anywhere = np.minimum((generator.random(len(centres)) * number).astype(int), number - 1)
            keeps = (share < 0.5) & ~np.isnan(centres)
            return np.where(keeps, centres, anywhere)
        low = ndtr((0 - centres) / self._width)
        high = ndtr((1 - centres) / self._width)
        inside = centres + self._width * ndtri(low + share * (high - low))
        return np.clip(np.where(np.isnan(centres), share, inside), 0.0, 1.0)

    def _log_kernels(self, points: np.ndarray) -> np.ndarray:
        """[M, N + 1] logarithms of the kernels' densities, the uniform one last."""
        found = np.zeros((len(points), len(self._points) + 1))
        for column, number in enumerate(self._num_choices.tolist()):
            at = points[:, column]
            if number:
                found += _choice_kernels(at, self._points[:, column], number)
            else:
                found[:, :-1] += self._range_kernels(at, self._points[:, column])
        return found

    def _range_kernels(self, at: np.ndarray, centres: np.ndarray) -> np.ndarray:
        inside = ndtr((1 - centres) / self._width) - ndtr((0 - centres) / self._width)
        constant = np.log(self._width * math.sqrt(2 * math.pi) * inside)
        squares = ((at[:, None] - centres) / self._width) ** 2
        return np.asarray(np.nan_to_num(-squares / 2 - constant, nan=0.0))


def _choice_kernels(at: np.ndarray, centres: np.ndarray, number: int) -> np.ndarray:
    """[M, N + 1]: half of a kernel is at its own value, half on all of them."""
    elsewhere = 0.5 / number
    same = np.where(at[:, None] == centres, 0.5 + elsewhere, elsewhere)
    same = np.where(np.isnan(centres), 1 / number, same)
    every = np.concatenate([same, np.full((len(at), 1), 1 / number)], axis=1)
    return np.where(np.isnan(at)[:, None], 0.0, np.log(every))
