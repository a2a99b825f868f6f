"""Statistics of results: numpy and scipy alone, without Ray, store or ledger."""

from tune.stats.counts import conversation_counts, score_counts
from tune.stats.paired import NUM_DRAWS, Interval, holm, intervals, permutation_p
from tune.stats.race import (
    FIRST_LOOK,
    Behind,
    Estimate,
    Scored,
    behind,
    estimates,
    num_looks,
    score_run,
)

__all__ = [
    "FIRST_LOOK",
    "NUM_DRAWS",
    "Behind",
    "Estimate",
    "Interval",
    "Scored",
    "behind",
    "conversation_counts",
    "estimates",
    "holm",
    "intervals",
    "num_looks",
    "permutation_p",
    "score_counts",
    "score_run",
]
