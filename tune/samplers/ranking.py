"""The order of trials of which some were stopped early."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

__all__ = ["best_so_far", "num_good", "shares_beaten"]


def best_so_far(curve: Mapping[int, float], num_epochs: int) -> np.ndarray:
    """[E] the best value up to each epoch; NaN after the last one that there is.

    Args:
        curve: values by epoch, from 1; larger ones are better.
        num_epochs: E.
    """
    row = np.full(num_epochs, -np.inf)
    for epoch, value in curve.items():
        row[min(max(epoch, 1), num_epochs) - 1] = value
    row = np.maximum.accumulate(row)
    row[min(max(curve, default=0), num_epochs) :] = np.nan
    return row


def shares_beaten(best: np.ndarray) -> np.ndarray:
    """The share of the other trials that each trial beats, ties counted by half.

    Two trials are compared at the last epoch that both have: a trial that was stopped at its third
    epoch is not worse than one that ended later because it had no time to become better.

    Args:
        best: [N, E] see `best_so_far`; a trial without any value is beaten by those with one.

    Returns:
        [N] shares from 0 to 1.
    """
    lasts = (~np.isnan(best)).sum(axis=1)
    beaten = np.where(lasts == 0, 0.0, 1.0 * (lasts == 0).sum())
    for end in sorted(set(lasts.tolist()) - {0}):
        here, later = lasts == end, lasts > end
        values = best[:, end - 1]
        # Those that ended here meet each other and all later ones here, and these meet them.
        beaten[here] += _beaten(values[here], values[here | later]) - 0.5
        beaten[later] += _beaten(values[later], values[here])
    return np.asarray(beaten / max(len(best) - 1, 1))


def num_good(number: int) -> int:
    """How many of so many trials count as good, as in Optuna's TPE."""
    return min(math.ceil(0.1 * number), 25)


def _beaten(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """How many of the others each value beats."""
    others = np.sort(others)
    below = np.searchsorted(others, values, side="left")
    return np.asarray((below + np.searchsorted(others, values, side="right")) / 2)
