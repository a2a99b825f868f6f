"""Statistics of results: numpy and scipy alone, without Ray, store or ledger."""

from tune.stats.counts import conversation_counts, score_counts
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
    "Behind",
    "Estimate",
    "Scored",
    "behind",
    "conversation_counts",
    "estimates",
    "num_looks",
    "score_counts",
    "score_run",
]
