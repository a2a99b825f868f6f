"""Two systems on the same conversations: is one better, by how much, and after how many questions.

Systems are compared as the rows of a paper's table are: each was trained with the same seeds, and
predicts the same conversations of test.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tune.stats.counts import score_counts

__all__ = ["NUM_DRAWS", "Interval", "holm", "intervals", "permutation_p"]

NUM_DRAWS = 10_000
SEED = 0
"""Of all draws: the same predictions have the same p-values."""
AT_A_TIME = 500
"""Draws that are in memory together: [draw, seed, true class, predicted class] each."""
ROUNDING = 1e-12
"""By which scores of the same counts may differ when they are summed in another order."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A confidence interval."""

    low: float
    high: float


def permutation_p(
    one: NDArray[Any],
    other: NDArray[Any],
    metric: str,
    labels: tuple[str, ...],
    num_draws: int = NUM_DRAWS,
) -> float:
    """The p-value of `two systems predict equally well`, two-sided, by a paired permutation test.

    The test is approximate randomisation (Noreen, Computer-intensive methods for testing
    hypotheses, 1989; for F1 Yeh, More accurate tests for the statistical significance of result
    differences, COLING 2000). Were the systems equal, it would not matter which of two predictions
    is whose; so in each draw both are swapped for a random half of the conversations, and the
    p-value is the share of draws, the data themselves among them, with a difference at least as
    large (Phipson and Smyth, Permutation p-values should never be zero, SAGMB 9, 2010).

    A conversation is swapped as a whole, and with all seeds at once: its utterances depend on each
    other, and so do the predictions of one utterance with several seeds. The statistic is the
    difference of the means over seeds. What is tested are thus the models that were trained; how
    much others with other seeds would vary is in `intervals`.

    Args:
        one: the counts of one system, [seed, conversation, true class, predicted class], from
            `conversation_counts` of each seed.
        other: the counts of the other, with the same seeds and conversations.
        metric: see `score_counts`.
        labels: the names of the classes.
        num_draws: how many random swaps are drawn.
    """
    whole = (one + other).sum(axis=1)
    difference = np.abs(_gap(one.sum(axis=1), whole, metric, labels)) - ROUNDING
    swapped = np.moveaxis(other - one, 1, 0).astype(np.float64)
    num_conversations, shape = swapped.shape[0], swapped.shape[1:]
    swapped, own = swapped.reshape(num_conversations, -1), one.sum(axis=1)
    generator = np.random.default_rng(SEED)
    found = 0
    for size in _sizes(num_draws):
        swap = generator.integers(0, 2, (size, num_conversations)).astype(np.float64)
        drawn = own + (swap @ swapped).reshape(size, *shape)
        found += int((np.abs(_gap(drawn, whole, metric, labels)) >= difference).sum())
    return (1 + found) / (1 + num_draws)


def _gap(one: NDArray[Any], whole: NDArray[Any], metric: str, labels: tuple[str, ...]) -> Floats:
    """The difference of two means over seeds, [...], from the counts of one system, [..., seed,
    class, class], and those of both together."""
    scores = score_counts(one, metric, labels) - score_counts(whole - one, metric, labels)
    return np.asarray(scores.mean(axis=-1), dtype=np.float64)


def intervals(
    one: NDArray[Any],
    other: NDArray[Any] | None,
    metric: str,
    labels: tuple[str, ...],
    confidence: float = 0.95,
    num_draws: int = NUM_DRAWS,
) -> Interval:
    """The confidence interval of a system's mean over seeds, or of its difference to another's.

    The bootstrap's percentiles (Efron and Tibshirani, An introduction to the bootstrap, 1993),
    where conversations and seeds are drawn with replacement, each by itself, and every utterance
    goes with its conversation: the pigeonhole bootstrap (Owen, Annals of Applied Statistics 1,
    2007). Two systems are compared on the same draws. With few seeds it takes the variance over
    them for smaller than it is, by one part in as many as there are.

    Args:
        one: the system's counts, [seed, conversation, true class, predicted class].
        other: those of the one that it is compared with; None for its own mean.
        metric: see `score_counts`.
        labels: the names of the classes.
        confidence: of the interval.
        num_draws: how many samples are drawn.
    """
    generator = np.random.default_rng(SEED)
    num_seeds, num_conversations = one.shape[:2]
    systems = [one] if other is None else [one, other]
    flat = [
        np.moveaxis(counts, 1, 0).reshape(num_conversations, -1).astype(np.float64)
        for counts in systems
    ]
    found = []
    for size in _sizes(num_draws):
        each = np.full(num_conversations, 1 / num_conversations)
        conversations = generator.multinomial(num_conversations, each, size).astype(np.float64)
        seeds = generator.multinomial(num_seeds, np.full(num_seeds, 1 / num_seeds), size)
        scores = [
            score_counts(
                (conversations @ counts).reshape(size, num_seeds, *one.shape[2:]), metric, labels
            )
            for counts in flat
        ]
        values = scores[0] if other is None else scores[0] - scores[1]
        found.append((values * seeds).sum(axis=1) / num_seeds)
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(found), [tail, 1 - tail])
    return Interval(low=float(low), high=float(high))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values that are corrected for their number, in the same order: that any of the true
    hypotheses is rejected has at most the probability to which they are compared (Holm, A simple
    sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6, 1979).
    """
    number = len(p_values)
    corrected, least = [0.0] * number, 0.0
    for rank, place in enumerate(sorted(range(number), key=lambda one: p_values[one])):
        least = max(least, min(1.0, (number - rank) * p_values[place]))
        corrected[place] = least
    return corrected


def _sizes(num_draws: int) -> Iterator[int]:
    for start in range(0, num_draws, AT_A_TIME):
        yield min(AT_A_TIME, num_draws - start)
