"""Trainings that are known beforehand: configurations, each with a seed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from magtkd.errors import SweepError
from tune.ledger import Event, TrialEnded, TrialSuggested
from tune.space import Candidate

__all__ = ["Trainings", "fresh_seeds"]


def fresh_seeds(used: Collection[int], number: int) -> tuple[int, ...]:
    """The smallest seeds that are not used. They do not depend on anything else, so that whoever
    confirms a sweep twice gets the same trainings again, and no other draw."""
    found: list[int] = []
    seed = 0
    while len(found) < number:
        if seed not in used:
            found.append(seed)
        seed += 1
    return tuple(found)


class Trainings:
    """Gives a driver candidates in the order of a list, in place of a study; see `Proposer`.

    Like a study it learns from the ledger's events alone, so that one that was interrupted
    continues with those candidates that were not suggested.

    Args:
        candidates: what is trained, each one different.
        events: the ledger's events so far.
    """

    reads_store = False

    def __init__(self, candidates: Sequence[Candidate] = (), events: Iterable[Event] = ()) -> None:
        self.running: dict[int, Candidate] = {}
        self.suggested: list[Candidate] = []
        self._names: set[str] = set()
        self._candidates = candidates
        for event in events:
            self.apply(event)

    def wanted(self) -> Iterable[Candidate]:
        """What may be trained now, in order; those that were suggested may be among it."""
        return self._candidates

    @property
    def num_trials(self) -> int:
        """Trials that were suggested so far."""
        return len(self.suggested)

    @property
    def max_trials(self) -> int | None:
        """Trials that there will be at most."""
        return len(self._candidates)

    @property
    def has_more(self) -> bool:
        """Whether there may be trials that were not suggested yet."""
        return self.next() is not None

    def next(self) -> Candidate | None:
        """The first of those wanted that was not suggested; None where there is none now."""
        return next((one for one in self.wanted() if one.name not in self._names), None)

    def ask(self, used: float = 0.0) -> tuple[int, Candidate] | None:
        """Number and candidate of the next trial, or None where there is none now."""
        candidate = self.next()
        if candidate is None:
            return None
        number = self.num_trials
        self._open(candidate)
        return number, candidate

    def due(self) -> Event | None:
        """What is to be recorded before anything else is asked for."""
        return None

    def apply(self, event: Event) -> None:
        """Learn from one event of the ledger.

        Raises:
            SweepError: a trial that is out of order.
        """
        match event:
            case TrialSuggested() if event.trial >= self.num_trials:
                if event.trial != self.num_trials:
                    raise SweepError(
                        f"ledger: trial {event.trial} comes after {self.num_trials - 1}; restore "
                        "the ledger from a copy"
                    )
                self._open(event.candidate)
            case TrialEnded():
                self.running.pop(event.trial, None)

    def _open(self, candidate: Candidate) -> None:
        self.running[self.num_trials] = candidate
        self.suggested.append(candidate)
        self._names.add(candidate.name)
