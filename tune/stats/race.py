"""Which configurations are worse than the best one, from a few seeds each.

What a configuration scores varies with the seed that it is trained with, and with the conversations
that dev happens to have. Both are treated as drawn at random, and crossed: each seed is scored on
all conversations, and all configurations have the same seeds and the same conversations, so that
differences are paired over both.

The variance of a mean over seeds, or of the difference of two, is the sum of two parts

- over seeds, the sample variance over their number;
- over conversations, the jackknife's (Efron and Stein, The jackknife estimate of variance, Annals
  of Statistics 9, 1981), which leaves out one after another and takes a score that is no mean, such
  as weighted F1, as it is.

Noise of single utterances is in both, so that their sum is on average a little too large (Owen, The
pigeonhole bootstrap, Annals of Applied Statistics 1, 2007). The third term of Cameron, Gelbach and
Miller (Robust inference with multiway clustering, JBES 29, 2011) would take it out once, and is
left out: with two or three seeds the rest is too small too often.

Statistics over their standard error are compared with Student's t, with degrees of freedom after
Satterthwaite (Biometrics Bulletin 2, 1946). A bootstrap is not used, since with two or three seeds
it takes the variance over them for half or two thirds of what it is; nor a permutation of seeds,
which with five of them has no p-value below 1/32.

With few seeds the variance of one difference is itself hardly known. As in a randomised block
design it is pooled over the configurations, which gives more degrees of freedom; where a pair's own
variance is larger, as that of a configuration that sometimes fails, that is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from tune.stats.counts import score_counts

__all__ = [
    "FIRST_LOOK",
    "Behind",
    "Estimate",
    "Scored",
    "behind",
    "estimates",
    "num_looks",
    "score_run",
]

FIRST_LOOK = 3
"""Seeds of each configuration before they are compared first: with two, next to nothing is known of
their variance."""

Floats = NDArray[np.float64]


def score_run(counts: NDArray[Any], metric: str, labels: tuple[str, ...]) -> tuple[Floats, Floats]:
    """The score of one trained model, and its scores without each conversation, [conversation].

    Args:
        counts: its `conversation_counts`.
        metric: see `score_counts`.
        labels: the names of the classes.
    """
    total = counts.sum(axis=0)
    return score_counts(total, metric, labels), score_counts(total - counts, metric, labels)


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The scores of some configurations with the same seeds on the same conversations; more is
    better."""

    scores: Floats
    """[configuration, seed], of all conversations."""
    without: Floats
    """[configuration, seed, conversation], of all conversations but one."""

    @classmethod
    def of(cls, runs: Sequence[Sequence[tuple[Floats, Floats]]]) -> Self:
        """The scores of runs, by configuration and seed, from `score_run`."""
        return cls(
            scores=np.array([[score for score, _ in seeds] for seeds in runs]),
            without=np.array([[without for _, without in seeds] for seeds in runs]),
        )

    @property
    def means(self) -> Floats:
        """The mean over seeds of each configuration."""
        return np.asarray(self.scores.mean(axis=1), dtype=np.float64)

    @property
    def leader(self) -> int:
        """The configuration with the best mean; the first of equals."""
        return int(np.argmax(self.means))


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a configuration scores, over seeds."""

    mean: float
    deviation: float
    """The standard deviation over seeds, of a sample."""
    low: float
    """The lower end of the mean's confidence interval, over seeds and conversations; 0 at least, as
    every score is."""
    high: float
    """Its upper end; 1 at most."""


@dataclass(frozen=True, kw_only=True)
class Behind:
    """How far a configuration is behind the leader."""

    gap: float
    """By its mean."""
    p: float
    """The p-value of `it is as good as the leader`, corrected for how often it could have been
    rejected; 1 at most."""


def num_looks(num_seeds: int) -> int:
    """How often configurations are compared that get so many seeds: after each seed from
    `FIRST_LOOK` on."""
    return max(0, num_seeds - FIRST_LOOK) + 1


def estimates(scored: Scored, confidence: float) -> list[Estimate]:
    """The mean of each configuration with its confidence interval, for at least two seeds.

    Args:
        scored: the scores.
        confidence: of each interval by itself, such as 0.95.
    """
    num_seeds, num_conversations = scored.without.shape[1:]
    variance = scored.scores.var(axis=1, ddof=1)
    over_seeds = variance / num_seeds
    over_conversations = _jackknife(scored.without.mean(axis=1))
    freedom = _freedom(over_seeds, num_seeds - 1, over_conversations, num_conversations - 1)
    half = stats.t.ppf((1 + confidence) / 2, freedom) * np.sqrt(over_seeds + over_conversations)
    low, high = (scored.means + sign * half for sign in (-1, 1))
    columns = (scored.means, np.sqrt(variance), low.clip(0, 1), high.clip(0, 1))
    rows = np.stack(columns, axis=1).tolist()
    return [
        Estimate(mean=mean, deviation=deviation, low=least, high=most)
        for mean, deviation, least, most in rows
    ]


def behind(scored: Scored, num_tests: int) -> list[Behind]:
    """How far each configuration is behind the one with the best mean, for at least two seeds.

    One that is as good as the best is found worse with a probability of at most the level to which
    `p` is compared. Which one leads is seen in the data, yet so many tests are enough as others
    could lead before it, times the number of looks (Bonferroni): for the best configuration, each
    of its comparisons is with one that is no better (Hsu, Constrained simultaneous confidence
    intervals for multiple comparisons with the best, Annals of Statistics 12, 1984). The race as a
    whole is that of Maron and Moore (Hoeffding races, NIPS 1994), whose bounds it replaces by a
    test as Birattari et al. do (A racing algorithm for configuring metaheuristics, GECCO 2002); it
    corrects for repeated looks, which the latter does not.

    Args:
        scored: the scores of the configurations that are still compared.
        num_tests: how many comparisons of one configuration there may be in all: the others that
            began with it, times the looks.
    """
    lead = scored.leader
    num_configurations, num_seeds = scored.scores.shape
    gap = scored.means[lead] - scored.means
    own = (scored.scores[lead] - scored.scores).var(axis=1, ddof=1)
    over_seeds = np.maximum(own, 2 * _residual(scored.scores)) / num_seeds
    mean_without = scored.without.mean(axis=1)
    over_conversations = _jackknife(mean_without[lead] - mean_without)
    freedom = _freedom(
        over_seeds,
        max(1, num_configurations - 1) * (num_seeds - 1),
        over_conversations,
        mean_without.shape[1] - 1,
    )
    error = np.sqrt(over_seeds + over_conversations)
    # Without any variance, what is behind is behind for sure.
    ratio = np.divide(gap, error, out=np.where(gap > 0, np.inf, 0.0), where=error > 0)
    p = np.minimum(1.0, stats.t.sf(ratio, freedom) * num_tests)
    p[lead] = 1.0
    return [Behind(gap=float(one), p=float(two)) for one, two in zip(gap, p, strict=True)]


def _residual(scores: Floats) -> float:
    """The variance of [configuration, seed] that neither the one nor the other explains."""
    num_configurations, num_seeds = scores.shape
    if num_configurations == 1:
        return 0.0
    rest = scores - scores.mean(axis=0) - scores.mean(axis=1, keepdims=True) + scores.mean()
    return float((rest**2).sum() / ((num_configurations - 1) * (num_seeds - 1)))


def _jackknife(without: Floats) -> Floats:
    """The variance of a statistic, from its values without one conversation each, [..., C]."""
    number = without.shape[-1]
    return np.asarray((number - 1) * without.var(axis=-1), dtype=np.float64)


def _freedom(one: Floats, one_freedom: int, other: Floats, other_freedom: int) -> Floats:
    """Satterthwaite's degrees of freedom of a sum of two variances."""
    squares = one**2 / one_freedom + other**2 / other_freedom
    whole = np.full_like(squares, float(one_freedom))
    return np.divide((one + other) ** 2, squares, out=whole, where=squares > 0)
