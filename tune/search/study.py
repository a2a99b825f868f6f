"""A sweep's Optuna study, in memory: a projection of the ledger.

A driver that was killed continues as if it had not been: given the events of the ledger, a new
`SweepStudy` suggests what the old one would have suggested. This holds for one version of Optuna on
one machine; `gp` needs the same number of threads too, as its linear algebra rounds differently
otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import optuna
from optuna.study import StudyDirection
from optuna.trial import TrialState as OptunaState

from magtkd.errors import SweepError
from tune.config import SweepConfig
from tune.ledger import EpochReported, Event, TrialEnded, TrialStatus, TrialSuggested
from tune.search.joint import make_sampler
from tune.space import Candidate, Values

__all__ = ["OPTUNA_STATES", "SweepStudy"]

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


def _final_state(state: TrialStatus, objectives: Sequence[float | None] | None) -> OptunaState:
    """Optuna's state of a trial that ended; without finite objectives none is complete."""
    final = OPTUNA_STATES[state]
    values = objectives or [None]
    finite = all(value is not None and math.isfinite(value) for value in values)
    return final if finite or final != OptunaState.COMPLETE else OptunaState.FAIL


class SweepStudy:
    """A sweep's Optuna study, which learns from the ledger's events and from nothing else.

    `ask` gives the next trial; everything else arrives through `apply`.

    Args:
        sweep: the sweep, which was checked.
        events: the ledger's events so far.
    """

    def __init__(self, sweep: SweepConfig, events: Iterable[Event] = ()) -> None:
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
        self._points = self._sampler.points(self._problem)
        for event in events:
            self.apply(event)

    @property
    def num_trials(self) -> int:
        """Trials that were suggested so far."""
        return len(self._reports)

    @property
    def max_trials(self) -> int | None:
        """Trials that there will be: as many as asked for, or all points of a smaller grid; None
        where only the budget's hours end the sweep."""
        return self._problem.num_trials if self._points is None else len(self._points)

    @property
    def has_more(self) -> bool:
        """Whether there are trials that were not suggested yet."""
        return self.max_trials is None or self.num_trials < self.max_trials

    def ask(self) -> tuple[int, Candidate] | None:
        """Number and candidate of the next trial, or None when there were as many as asked for."""
        number = self.num_trials
        if not self.has_more:
            return None
        return number, self._open(number, None if self._points is None else self._points[number])

    def apply(self, event: Event) -> None:
        """Learn from one event of the ledger; those of other kinds change nothing here.

        As in the ledger, the first report of an epoch counts, and the first end of a trial.

        Raises:
            SweepError: a suggestion that this sweep's space does not have.
        """
        match event:
            case EpochReported() if event.trial in self.running and self._metric is not None:
                value = event.metrics.get(self._metric)
                if value is not None and math.isfinite(value):
                    self._reports[event.trial].setdefault(event.epoch, value)
            case TrialSuggested() if event.trial >= self.num_trials:
                self._replay(event.trial, event.values)
            case TrialEnded() if event.trial in self.running:
                self._end(event.trial, event.state, event.objectives)

    def _open(self, number: int, fixed: Values | None) -> Candidate:
        """Start a trial in the study, with values that are fixed or the sampler's own."""
        space = self._problem.space
        if fixed is None or self._sampler.has_memory:
            self.study.sampler = make_sampler(self._sampler, self._problem, number)
        else:
            self.study.sampler = optuna.samplers.RandomSampler(seed=0)
        if fixed is not None:
            self.study.enqueue_trial(space.own_values(fixed))
        trial = self.study.ask()
        assert trial.number == number, f"trial {number} opened as {trial.number}"
        if self._sampler.has_memory:
            _ = trial.relative_params  # Optuna asks lazily, and for fixed values not at all.
        candidate = Candidate(values=space.suggest(trial, self._problem.base))
        self._trials[number], self._reports[number] = trial, {}
        self.running[number] = candidate
        return candidate

    def _replay(self, number: int, values: Values) -> None:
        space = self._problem.space
        own = space.own_values(values)
        known = all(entry.contains(own[name]) for name, entry in space.entries if name in own)
        if number != self.num_trials or not known or self._open(number, values).values != values:
            raise SweepError(
                f"ledger of sweep {self._sweep.name!r}: trial {number}: the sweep's space does "
                f"not have {values}; restore the ledger from a copy"
            )

    def _end(
        self, number: int, state: TrialStatus, objectives: Sequence[float | None] | None
    ) -> None:
        trial = self._trials.pop(number)
        del self.running[number]
        for epoch, value in sorted(self._reports[number].items()):
            trial.report(value, epoch)
        final = _final_state(state, objectives)
        values = [value for value in objectives or () if value is not None]
        self.study.tell(trial, values if final == OptunaState.COMPLETE else None, state=final)
