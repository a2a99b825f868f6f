"""Parzen estimators over a search space: densities that can be drawn from, also with values given.

A space's own names are columns: a range is mapped to [0, 1], on its logarithmic scale where it has
one, a choice to the index of its value; a name that a trial does not have is NaN.

Shapes: N observations, M points, K names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import logsumexp, ndtr, ndtri

from tune.space import Choice, Entry, FloatRange, IntRange, Scalar, Space, Values

__all__ = ["Belief", "Columns", "Parzen"]

BANDWIDTH = 0.2
"""Of a kernel in [0, 1] where there is one observation; Optuna's for several names together."""
MOST_KERNELS = 1000
"""The latest so many observations are in a density, so that its cost is bounded."""
PRIOR_WIDTHS = {"low": 0.5, "medium": 0.25, "high": 0.125}
"""Of the normal distribution in [0, 1] around a prior, by confidence; those of NePS."""
PRIOR_ODDS = {"low": 2.0, "medium": 4.0, "high": 6.0}
"""Of a choice's prior against each other value; those of NePS."""


@dataclass(frozen=True)
class Belief:
    """The priors of a space as one more kernel."""

    point: np.ndarray
    """[K] their places; NaN for a name without one, where the kernel is uniform."""
    widths: np.ndarray
    """[K] of ranges."""
    odds: np.ndarray
    """[K] of choices."""


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
        priors = [entry.prior for _, entry in space.entries]
        values = {
            name: prior.value
            for name, prior in zip(self.names, priors, strict=True)
            if prior is not None
        }
        confidences = ["low" if prior is None else prior.confidence for prior in priors]
        self.belief = None
        if values:
            self.belief = Belief(
                self.encode(values),
                np.array([PRIOR_WIDTHS[one] for one in confidences]),
                np.array([PRIOR_ODDS[one] for one in confidences]),
            )

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
    """A mixture of one kernel for each observation, a uniform one, and one of the priors.

    A kernel is a product over the names (Falkner et al., 2018, as in Optuna's multivariate TPE): a
    normal distribution cut to [0, 1] for a range, the observed value with some weight for the
    others for a choice. Where an observation lacks a name, its kernel is uniform there. The priors
    are a kernel like an observation's, with widths of their own, so that they count less the more
    observations there are.

    Args:
        points: [N, K] observations; the latest `MOST_KERNELS` count.
        num_choices: [K] see `Columns`.
        belief: the priors, if any.
        weights: [N] of the observations; 1 where it is not given, as that of the uniform kernel.
    """

    def __init__(
        self,
        points: np.ndarray,
        num_choices: np.ndarray,
        belief: Belief | None = None,
        weights: np.ndarray | None = None,
    ) -> None:
        weights = np.ones(len(points)) if weights is None else weights
        points, weights = points[weights > 0], weights[weights > 0]
        points, weights = points[-MOST_KERNELS:], weights[-MOST_KERNELS:]
        number, width = points.shape
        effective = float(weights.sum())
        narrowest = 1 / (1 + min(100, effective + 1))
        bandwidth = max(BANDWIDTH * max(effective, 1) ** (-1 / (width + 4)), narrowest)
        self._num_choices = num_choices
        self._centres = np.concatenate([points, np.full((1, width), math.nan)])
        """[C, K] of the kernels, C being N + 1, or N + 2 with priors."""
        self._widths = np.full((number + 1, width), bandwidth)
        self._odds = np.ones((number + 1, width)) + num_choices
        """[C, K] of a choice's own value against each other: one half and its share of the rest."""
        weights = np.append(weights, 1.0)
        if belief is not None:
            self._centres = np.concatenate([self._centres, belief.point[None]])
            self._widths = np.concatenate([self._widths, belief.widths[None]])
            self._odds = np.concatenate([self._odds, belief.odds[None]])
            weights = np.append(weights, 1.0)
        self._log_weights = np.log(weights / weights.sum())

    def log_density(self, points: np.ndarray) -> np.ndarray:
        """[M] of points [M, K]; a name that a point lacks does not count."""
        return np.asarray(logsumexp(self._log_kernels(points), axis=1))

    def sample(self, generator: np.random.Generator, given: np.ndarray, size: int) -> np.ndarray:
        """[size, K] points with the values of `given` [K], where these are not NaN; all names have
        a value."""
        weights = self._log_kernels(given[None])[0]
        weights = np.exp(weights - logsumexp(weights))
        chosen = generator.choice(len(weights), size=size, p=weights / weights.sum())
        drawn = np.where(np.isnan(given), math.nan, given) * np.ones((size, 1))
        for column in np.flatnonzero(np.isnan(given)).tolist():
            drawn[:, column] = self._draw(generator, chosen, column)
        return drawn

    def _draw(self, generator: np.random.Generator, chosen: np.ndarray, column: int) -> np.ndarray:
        """[size] values of a name from the chosen kernels [size]."""
        number = int(self._num_choices[column])
        centres = self._centres[chosen, column]
        share = generator.random(len(centres))
        if number:
            anywhere = np.minimum((generator.random(len(centres)) * number).astype(int), number - 1)
            odds = self._odds[chosen, column]
            keeps = (share < (odds - 1) / (odds - 1 + number)) & ~np.isnan(centres)
            return np.asarray(np.where(keeps, centres, anywhere))
        return normal_places(share, centres, self._widths[chosen, column])

    def _log_kernels(self, points: np.ndarray) -> np.ndarray:
        """[M, C] logarithms of the weighted kernels' densities."""
        found = np.tile(self._log_weights, (len(points), 1))
        for column, number in enumerate(self._num_choices.tolist()):
            at, centres = points[:, column], self._centres[:, column]
            if number:
                found += _choice_kernels(at, centres, self._odds[:, column], number)
            else:
                found += _range_kernels(at, centres, self._widths[:, column])
        return found


def normal_places(shares: np.ndarray, centres: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """[M] the places below which a normal distribution that is cut to [0, 1] has these shares [M];
    that of a uniform one where the centre [M] is NaN."""
    low, high = ndtr((0 - centres) / widths), ndtr((1 - centres) / widths)
    inside = centres + widths * ndtri(low + shares * (high - low))
    return np.asarray(np.clip(np.where(np.isnan(centres), shares, inside), 0.0, 1.0))


def _range_kernels(at: np.ndarray, centres: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """[M, C]; a name that a point or a kernel lacks does not count."""
    inside = ndtr((1 - centres) / widths) - ndtr((0 - centres) / widths)
    constant = np.log(widths * math.sqrt(2 * math.pi) * inside)
    squares = ((at[:, None] - centres) / widths) ** 2
    return np.asarray(np.nan_to_num(-squares / 2 - constant, nan=0.0))


def _choice_kernels(
    at: np.ndarray, centres: np.ndarray, odds: np.ndarray, number: int
) -> np.ndarray:
    """[M, C]"""
    elsewhere = 1 / (odds - 1 + number)
    same = np.where(at[:, None] == centres, odds * elsewhere, elsewhere)
    same = np.where(np.isnan(centres), 1 / number, same)
    return np.asarray(np.where(np.isnan(at)[:, None], 0.0, np.log(same)))
