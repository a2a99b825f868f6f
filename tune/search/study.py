"""A sweep's Optuna study, in memory: a projection of the ledger.

A driver that was killed continues as if it had not been: given the events of the ledger, a new
`SweepStudy` suggests what the old one would have suggested. This holds for one version of Optuna on
one machine; `gp` needs the same number of threads too, as its linear algebra rounds differently
otherwise.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property

import optuna
from optuna.study import StudyDirection
from optuna.trial import TrialState as OptunaState

from magtkd.errors import SweepError, shorten
from magtkd.pipeline import Plan
from tune.config import SweepConfig
from tune.ledger import (
    EpochReported,
    Event,
    StoreListed,
    TrialEnded,
    TrialsLearned,
    TrialStatus,
    TrialSuggested,
)
from tune.search.joint import make_sampler
from tune.search.seconds import LearnedSeconds
from tune.space import Candidate, Values

__all__ = ["OPTUNA_STATES", "SweepStudy", "final_state"]

# The ledger has what Optuna would log, and the display shows it.
optuna.logging.set_verbosity(optuna.logging.ERROR)

OPTUNA_STATES = {
    TrialStatus.RUNNING: OptunaState.RUNNING,
    TrialStatus.COMPLETED: OptunaState.COMPLETE,
    TrialStatus.STOPPED: OptunaState.PRUNED,
    TrialStatus.DIVERGED: OptunaState.FAIL,
    TrialStatus.FAILED: OptunaState.FAIL,
}
"""Optuna's state for each of the ledger's."""


READS = {
    "teacher": (),
    "audio": ("teacher",),
    "video": ("teacher",),
    "fusion": ("teacher", "audio", "video"),
}
"""The stages that a stage reads, where nothing else is known."""


def final_state(state: TrialStatus, objectives: Sequence[float | None] | None) -> OptunaState:
    """Optuna's state of a trial that ended; without finite objectives none is complete."""
    final = OPTUNA_STATES[state]
    values = objectives or [None]
    finite = all(value is not None and math.isfinite(value) for value in values)
    return final if finite or final != OptunaState.COMPLETE else OptunaState.FAIL


def section_plan(values: Values) -> Plan:
    """A plan by the values alone, where there is no table: a stage's key is what its section and
    those of the stages before it have of them."""
    keys = {}
    for stage, read in READS.items():
        sections = {stage, *read}
        own = {name: one for name, one in values.items() if name.partition(".")[0] in sections}
        keys[stage] = json.dumps([stage, own], sort_keys=True)
    return Plan(keys, READS)


class SweepStudy:
    """A sweep's Optuna study, which learns from the ledger's events and from nothing else.

    `ask` gives the next trial; everything else arrives through `apply`.

    Args:
        sweep: the sweep, which was checked.
        events: the ledger's events so far.
        plan: the stages of a trial with some values, and their keys; by default, what the sections
            of the searched names give.
    """

    def __init__(
        self,
        sweep: SweepConfig,
        events: Iterable[Event] = (),
        plan: Callable[[Values], Plan] | None = None,
    ) -> None:
        directions = [
            StudyDirection.MAXIMIZE if one.mode == "max" else StudyDirection.MINIMIZE
            for one in sweep.objective
        ]
        self.study = optuna.create_study(study_name=sweep.name, directions=directions)
        self.running: dict[int, Candidate] = {}
        """The trials that were suggested and have not ended, as they were suggested."""
        self._sweep, self._problem, self._sampler = sweep, sweep.problem, sweep.sampler
        self._metric = sweep.objective[0].metric if len(sweep.objective) == 1 else None
        self._trials: dict[int, optuna.Trial] = {}
        self._reports: dict[int, dict[int, float]] = {}
        self._outside: set[int] = set()
        self._points = self._sampler.points(self._problem)
        self._seconds = LearnedSeconds(self._problem)
        self._search = self._sampler.search(self._problem, plan or section_plan, self._seconds)
        for event in events:
            self.apply(event)

    @property
    def reads_store(self) -> bool:
        """Whether suggestions depend on what is in the store: it is listed in the ledger first."""
        return self._search is not None

    @property
    def num_trials(self) -> int:
        """Trials that were suggested so far."""
        return len(self._reports)

    @property
    def max_trials(self) -> int | None:
        """Trials that there will be: as many as asked for, or all points of a smaller grid; where
        only the budget's hours end the sweep, as many as a finite space has points, else None. No
        fewer than there are, though fewer were asked for later."""
        if self._points is not None:
            return len(self._points)
        if self._problem.num_trials is not None:
            return max(self._problem.num_trials, self.num_trials)
        return self._num_points

    @cached_property
    def _num_points(self) -> int | None:
        return self._problem.space.num_points(self._problem.base)

    @property
    def has_more(self) -> bool:
        """Whether there are trials that were not suggested yet."""
        return self.max_trials is None or self.num_trials < self.max_trials

    def ask(self, used: float = 0.0) -> tuple[int, Candidate] | None:
        """Number and candidate of the next trial, or None when there were as many as asked for.

        Args:
            used: the share of the budget's hours that is used, from 0 to 1.
        """
        number = self.num_trials
        if not self.has_more:
            return None
        if self._points is not None:
            return number, self._open(number, self._points[number])
        if number < len(self._problem.start):
            return number, self._open(number, self._problem.start[number])
        used = max(used, number / self.max_trials if self.max_trials else 0.0)
        chosen = None if self._search is None else self._search.ask(number, used)
        return number, self._open(number, chosen)

    def due(self) -> None:
        """Nothing: a study decides when it is asked."""

    def apply(self, event: Event) -> None:
        """Learn from one event of the ledger; those of other kinds change nothing here.

        As in the ledger, the first report of an epoch counts, and the first end of a trial.

        Raises:
            SweepError: a suggestion that this sweep's space does not have.
        """
        if self._search is not None:
            self._seconds.apply(event)
        match event:
            case EpochReported() if event.trial in self.running and self._metric is not None:
                value = event.metrics.get(self._metric)
                if value is not None and math.isfinite(value):
                    self._reports[event.trial].setdefault(event.epoch, value)
                    if self._search is not None:
                        self._search.report(event.trial, event.epoch, value)
            case TrialSuggested() if event.trial >= self.num_trials:
                self._replay(event.trial, event.values)
            case StoreListed() if self._search is not None:
                self._search.add_stored(key for keys in event.keys.values() for key in keys)
            case TrialsLearned() if self._search is not None:
                self._search.learn(event.trials, is_same=event.is_same)
            case TrialEnded() if event.trial in self.running:
                self._end(event.trial, event.state, event.objectives)

    def _open(self, number: int, fixed: Values | None) -> Candidate:
        """Start a trial in the study, with values that are fixed or the sampler's own."""
        space = self._problem.space
        if fixed is None or self._sampler.has_memory:
            self.study.sampler = make_sampler(self._sampler, self._problem, number)
        else:
            self.study.sampler = optuna.samplers.RandomSampler(seed=0)
        is_inside = fixed is None or space.has(fixed)
        if fixed is not None and is_inside:
            self.study.enqueue_trial(space.own_values(fixed))
        trial = self.study.ask()
        assert trial.number == number, f"trial {number} opened as {trial.number}"
        if self._sampler.has_memory:
            _ = trial.relative_params  # Optuna asks lazily, and for fixed values not at all.
        if is_inside:
            candidate = Candidate(values=space.suggest(trial, self._problem.base))
        else:  # Optuna has no place for it
            assert fixed is not None
            candidate = Candidate(values=fixed)
            self._outside.add(number)
        self._trials[number], self._reports[number] = trial, {}
        self.running[number] = candidate
        if self._search is not None:
            self._search.begin(number, candidate.values)
        return candidate

    def _replay(self, number: int, values: Values) -> None:
        known = values in self._problem.start or self._problem.space.has(values)
        if number != self.num_trials or not known or self._open(number, values).values != values:
            raise SweepError(
                f"ledger of sweep {self._sweep.name!r}: trial {number}: the sweep's space does "
                f"not have {shorten(str(values))}; restore the ledger from a copy"
            )

    def _end(
        self, number: int, state: TrialStatus, objectives: Sequence[float | None] | None
    ) -> None:
        trial = self._trials.pop(number)
        del self.running[number]
        for epoch, value in sorted(self._reports[number].items()):
            trial.report(value, epoch)
        final = final_state(state, objectives)
        if self._search is not None:
            self._search.end(number, has_failed=final == OptunaState.FAIL)
        if number in self._outside:
            final = OptunaState.FAIL
        values = [value for value in objectives or () if value is not None]
        self.study.tell(trial, values if final == OptunaState.COMPLETE else None, state=final)
