"""The state of a sweep: the events of its ledger, folded one after another."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from magtkd.config import validate
from magtkd.errors import SweepError
from magtkd.metrics import Scores
from magtkd.pipeline import Outcome, StageRecord
from tune.config import SweepConfig, with_changes
from tune.ledger.events import (
    EpochReported,
    Event,
    RoundDecided,
    StagesRecorded,
    SweepChanged,
    SweepClosed,
    SweepEnd,
    SweepOpened,
    SweepResumed,
    TestRevealed,
    TrialChanged,
    TrialEnded,
    TrialEvent,
    TrialStatus,
    TrialSuggested,
    Warned,
)
from tune.ledger.race import RaceSetup
from tune.space import Candidate, Objective, Values

__all__ = ["SweepState", "TrialState"]


@dataclass(kw_only=True)
class TrialState:
    """One trial, as far as the ledger has recorded it."""

    number: int
    suggested: Candidate
    """As the sampler suggested it."""
    suggested_time: int
    candidate: Candidate
    """As it is now: population based training may have changed it."""
    state: TrialStatus = TrialStatus.RUNNING
    stages: dict[str, StageRecord] = field(default_factory=dict)
    reports: list[EpochReported] = field(default_factory=list)
    changes: dict[int, Values] = field(default_factory=dict)
    """The values that held from an epoch on, by epoch, for each change so far."""
    dev: Scores | None = None
    test: Scores | None = None
    epoch: int | None = None
    objectives: list[float | None] | None = None
    message: str | None = None
    ended_time: int | None = None
    epochs_seen: set[int] = field(default_factory=set, repr=False)

    @property
    def values(self) -> Values:
        """The values as they were suggested."""
        return self.suggested.values

    @property
    def has_ended(self) -> bool:
        """Whether the trial is over, however it ended."""
        return self.ended_time is not None

    @property
    def score(self) -> float | None:
        """The first objective of a completed trial; None where it has none."""
        if self.state != TrialStatus.COMPLETED or not self.objectives:
            return None
        return self.objectives[0]


class SweepState:
    """What the events so far amount to; `apply` folds in one more."""

    def __init__(self) -> None:
        self.sweep_id = ""
        self.name = ""
        self.config: dict[str, Any] = {}
        self.changes: dict[str, Any] = {}
        self.fingerprint = ""
        self.format = 0
        self.versions: dict[str, str] = {}
        self.trials: dict[int, TrialState] = {}
        self.running: dict[int, TrialState] = {}
        """Those that have not ended."""
        self.ended: list[TrialState] = []
        """The others, in the order in which they ended: who follows a long sweep looks at the new
        ones only."""
        self._counted = Counter[TrialStatus]()
        self.opened_time = 0
        self.closed_time: int | None = None
        self.closed: SweepEnd | None = None
        self.why_closed: str | None = None
        self.num_resumed = 0
        self.last_time = 0
        """Of the latest event."""
        self.pauses: list[tuple[int, int]] = []
        """When no driver ran, from the last event of one to the resume by the next."""
        self.is_tracked = True
        self.warnings: list[str] = []
        self.race: RaceSetup | None = None
        """What is confirmed, where this is the state of a confirmation."""
        self.rounds: list[RoundDecided] = []
        self.table: str | None = None
        """The table whose trainings these are, where they are no search."""

    @cached_property
    def sweep(self) -> SweepConfig:
        """The sweep's configuration, as it is now.

        Raises:
            ConfigError: it is none that this version knows.
        """
        return validate(SweepConfig, self.config, f"ledger of sweep {self.name!r}")

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """The sweep's objectives, of which there is at least one."""
        return self.sweep.objective

    @property
    def is_confirmed(self) -> bool:
        """Whether this is a confirmation that is over."""
        return bool(self.rounds) and self.rounds[-1].is_last

    @property
    def chosen(self) -> int | None:
        """The sweep's trial that a confirmation has chosen."""
        return self.rounds[-1].chosen if self.is_confirmed else None

    def title(self, trial: TrialState) -> str:
        """A trial as people know it: one of a confirmation is the sweep's trial with a seed."""
        if self.race is None:
            return f"trial {trial.number}"
        entry = self.race.entry_of(trial.suggested)
        return f"trial {entry.trial} with seed {trial.suggested.seed}"

    def count(self) -> Counter[TrialStatus]:
        """How many trials are in which state."""
        running = Counter({TrialStatus.RUNNING: len(self.running)} if self.running else {})
        return running + self._counted

    def apply(self, event: Event) -> bool:
        """Fold in the next event; whether it changed anything.

        The first report of an epoch counts, and so does a trial's first end: a session that
        continues from a checkpoint repeats the epochs since, Optuna ignores a step that it has, and
        MLflow cannot take a metric back. Kinds that this version does not know change nothing.

        Raises:
            SweepError: the event does not fit those before it.
        """
        before, self.last_time = self.last_time, event.time
        match event:
            case TrialSuggested():
                self._suggest(event)
            case TrialEvent():
                return self._apply_to_trial(event)
            case SweepOpened():
                self._open(event)
            case SweepResumed():
                self.closed = self.closed_time = self.why_closed = None
                self.num_resumed += 1
                self.pauses.append((before, event.time))
                self.format = max(self.format, event.format)
            case SweepChanged():
                self._change(event)
            case SweepClosed():
                self.closed, self.closed_time = event.reason, event.time
                self.why_closed = event.why
            case RoundDecided():
                self._decide(event)
            case Warned():
                self.warnings.append(event.message)
            case _:
                return False
        return True

    def _open(self, event: SweepOpened) -> None:
        if self.sweep_id:
            raise SweepError(f"ledger of sweep {self.name!r}: opened twice; one file is one sweep")
        self.sweep_id, self.name, self.config = event.sweep_id, event.name, event.config
        self.fingerprint, self.format = event.fingerprint, event.format
        self.versions, self.opened_time = event.versions, event.time
        self.is_tracked, self.race, self.table = event.tracked, event.race, event.table
        if event.race is not None and not (event.race.entries and len(event.race.seeds) > 1):
            raise SweepError(
                f"ledger of {event.race.name}: has no configurations or fewer than 2 seeds; "
                "restore the ledger from a copy"
            )

    def _decide(self, event: RoundDecided) -> None:
        known = {entry.trial for entry in self.race.entries} if self.race is not None else set()
        trials = {one.trial for one in event.standings}
        if not trials or not trials <= known or event.chosen not in {None, *trials}:
            raise SweepError(
                f"ledger of sweep {self.name!r}: a round was decided of trials {sorted(trials)}, "
                f"and the race is between {sorted(known)}; restore the ledger from a copy"
            )
        self.rounds.append(event)

    def _change(self, event: SweepChanged) -> None:
        self.config = with_changes(self.config, event.changes)
        self.changes |= event.changes
        self.__dict__.pop("sweep", None)  # made of the configuration, and cached

    def _suggest(self, event: TrialSuggested) -> None:
        if event.trial in self.trials:
            raise SweepError(
                f"ledger of sweep {self.name!r}: trial {event.trial} was suggested twice"
            )
        candidate = event.candidate
        if self.race is not None:
            self.race.entry_of(candidate)  # which there is
        self.trials[event.trial] = self.running[event.trial] = TrialState(
            number=event.trial,
            suggested=candidate,
            suggested_time=event.time,
            candidate=candidate,
        )

    def _check_end(self, event: TrialEnded) -> None:
        place = f"ledger of sweep {self.name!r}: trial {event.trial}"
        if event.state == TrialStatus.RUNNING:
            raise SweepError(f"{place}: ended as 'running'; restore the ledger from a copy")
        # Not from `sweep`: a configuration of another version can still be shown.
        objectives, got = self.config.get("objective"), event.objectives
        wanted = len(objectives) if isinstance(objectives, list) else 1
        if got is not None and len(got) != wanted:
            raise SweepError(
                f"{place}: ended with {len(got)} objectives, but the sweep has {wanted}; restore "
                "the ledger from a copy"
            )

    def _apply_to_trial(self, event: TrialEvent) -> bool:
        trial = self.trials.get(event.trial)
        if trial is None:
            raise SweepError(
                f"ledger of sweep {self.name!r}: {type(event).__name__} of trial {event.trial}, "
                "which was never suggested; restore the ledger from a copy"
            )
        match event:
            case EpochReported():
                return _report(trial, event)
            case StagesRecorded():
                return _record_stages(trial, event)
            case TrialChanged():
                return _change(trial, event)
            case TrialEnded():
                self._check_end(event)
                return self._end(trial, event)
            case TestRevealed():
                return _reveal(trial, event)
        return False

    def _end(self, trial: TrialState, event: TrialEnded) -> bool:
        if trial.has_ended:
            return False
        trial.state, trial.ended_time = event.state, event.time
        trial.message, trial.dev = event.message, event.dev
        trial.epoch, trial.objectives = event.epoch, event.objectives
        del self.running[trial.number]
        self.ended.append(trial)
        self._counted[event.state] += 1
        return True


def _report(trial: TrialState, event: EpochReported) -> bool:
    if event.epoch in trial.epochs_seen:
        return False
    trial.epochs_seen.add(event.epoch)
    trial.reports.append(event)
    return True


def _record_stages(trial: TrialState, event: StagesRecorded) -> bool:
    before = dict(trial.stages)
    for stage, record in event.stages.items():
        known = trial.stages.get(stage)
        # After a resume a trial finds what it trained itself; what that took must not be lost.
        if known and known.key == record.key and known.outcome == Outcome.TRAINED != record.outcome:
            continue
        trial.stages[stage] = record
    return trial.stages != before


def _change(trial: TrialState, event: TrialChanged) -> bool:
    known = trial.changes.get(event.epoch, {})
    changed = known | event.values
    trial.changes[event.epoch] = changed
    # All of it each time: a trial that continues another's session has the other's past.
    trial.candidate = event.candidate
    return changed != known


def _reveal(trial: TrialState, event: TestRevealed) -> bool:
    changed = trial.test != event.test
    trial.test = event.test
    return changed
