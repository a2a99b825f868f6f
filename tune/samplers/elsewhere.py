"""What trials of another table, or with other settings, say about own ones."""

from __future__ import annotations

import math

import numpy as np

from tune.samplers.parzen import Parzen
from tune.samplers.ranking import num_good, shares_beaten

__all__ = ["Elsewhere"]

MOST = 30.0
"""Trials as which they count together at most; half as many after so many own ones, and so on."""
AGREEMENT, AGREEMENT_TRIALS = 0.8, 3
"""Rank correlation with own trials that is assumed at first, and the own trials as which this
assumption counts."""


class Elsewhere:
    """Trials of another sweep, whose scores cannot be compared with own ones.

    Their order within their sweep counts: the better tenth enters the density of good trials, the
    others that of all others. They count as far as they order own trials rightly, and less the more
    own trials there are.

    Args:
        points: [N, K] as `Columns` has them.
        best: [N, E] see `best_so_far`.
        num_choices: [K] see `Columns`.
    """

    def __init__(self, points: np.ndarray, best: np.ndarray, num_choices: np.ndarray) -> None:
        order = np.argsort(-shares_beaten(best), kind="stable")
        number = num_good(len(order))
        self.good, self.others = points[order[:number]], points[order[number:]]
        """[G, K] and [N - G, K]"""
        self._densities = [Parzen(group, num_choices) for group in (self.good, self.others)]
        self._expected: list[float] = []

    def expect(self, point: np.ndarray) -> None:
        """An own trial begins at a point [K]."""
        good, others = (density.log_density(point[None])[0] for density in self._densities)
        self._expected.append(float(good - others))

    def agreement(self, ranks: np.ndarray) -> float:
        """How far these trials order own ones rightly, from 0 to 1: Kendall's rank correlation,
        drawn towards the first assumption where own trials are few.

        Args:
            ranks: [M] of all own trials; NaN for one that has not ended.
        """
        from scipy.stats import kendalltau

        ended = np.flatnonzero(~np.isnan(ranks))
        found = math.nan
        if len(ended) > 1:
            found = float(kendalltau(np.array(self._expected)[ended], ranks[ended]).statistic)
        number = 0 if math.isnan(found) else len(ended)
        weighted = AGREEMENT * AGREEMENT_TRIALS + (number and found * number)
        return max(weighted / (AGREEMENT_TRIALS + number), 0.0)

    def weight(self, agreement: float, num_own: int) -> float:
        """Of each of these trials, where an own one has 1.

        Args:
            agreement: with own trials, see `agreement`.
            num_own: how many own trials there are.
        """
        most = min(1.0, MOST / (len(self.good) + len(self.others)))
        return agreement * most * MOST / (MOST + num_own)
