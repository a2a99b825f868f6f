"""What a confirmation is about, and what it found: values of its ledger's events."""

from __future__ import annotations

from typing import Literal

import msgspec

from magtkd.errors import SweepError, shorten
from tune.space import Candidate, Scalar, Values

__all__ = ["VARY", "RaceEntry", "RaceSetup", "Standing", "Vary"]

Vary = Literal["all", "fusion"]
"""Which stages of a confirmation have fresh seeds."""
VARY: tuple[Vary, ...] = ("all", "fusion")


class RaceEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A configuration of the sweep that is trained again with other seeds."""

    trial: int
    """The sweep's trial that had it."""
    values: Values
    changes: dict[int, dict[str, Scalar]] = {}
    """What population based training changed; see `Candidate.changes`."""
    score: float
    """The objective that the trial reached."""

    def candidate(self, seed: int) -> Candidate:
        """The configuration with a seed."""
        return Candidate(values=self.values, changes=self.changes, seed=seed)


class RaceSetup(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A race of a sweep's best configurations on fresh seeds."""

    name: str
    """Of its folder below the sweep's, and of its runs: `confirm`, `confirm-2`, ..."""
    sweep_id: str
    """The sweep's."""
    entries: tuple[RaceEntry, ...]
    """In the order in which the sweep ranked them."""
    seeds: tuple[int, ...]
    """In the order in which they are given; none is a seed of the sweep's trials."""
    confidence: float = 0.95
    vary: Vary = "all"
    """Whether all stages have these seeds, or fusion alone."""
    num_completed: int = 0
    """Trials that the sweep had completed when the configurations were taken."""

    def entry_of(self, candidate: Candidate) -> RaceEntry:
        """The configuration that a trial of the race repeats.

        Raises:
            SweepError: none of the race's.
        """
        for entry in self.entries:
            if (entry.values, entry.changes) == (candidate.values, candidate.changes):
                return entry
        raise SweepError(
            f"ledger of {self.name}: no configuration of it has the values "
            f"{shorten(str(candidate.values))}; restore the ledger from a copy"
        )


class Standing(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A configuration after a round; without figures where `failed` has why."""

    trial: int
    mean: float | None = None
    """Of the objective, over its seeds."""
    deviation: float | None = None
    """The standard deviation over seeds, of a sample."""
    low: float | None = None
    """The lower end of the mean's confidence interval."""
    high: float | None = None
    """Its upper end."""
    gap: float | None = None
    """By how much its mean is behind the leader's."""
    p: float | None = None
    """The corrected p-value of that; see `tune.stats.behind`."""
    is_out: bool = False
    """Whether it gets no further seed."""
    failed: str | None = None
    """Why one of its trials gave no result."""
