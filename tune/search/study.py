"""A sweep's Optuna study, in memory: a projection of the ledger.

A driver that was killed goes on as if it had not been: fed the events of the ledger, a new
`SweepStudy` suggests what the old one would have suggested. This holds for one version of Optuna on
one machine; `gp` needs the same number of threads too, as its linear algebra rounds differently
otherwise.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import optuna
from optuna.study import StudyDirection
from optuna.trial import TrialState

from magtkd.errors import SweepError
from tune.config.space import Values
from tune.config.sweep import SweepConfig, base_of
from tune.search.samplers import SAMPLERS_WITH_MEMORY, distributions, make_sampler

__all__ = ["STATES", "ReportLike", "SweepStudy", "TrialLike", "study_of"]

# The ledger says what Optuna would log, and the display shows it.
optuna.logging.set_verbosity(optuna.logging.ERROR)

Event = Mapping[str, Any]

STATES = {
    "running": TrialState.RUNNING,
    "completed": TrialState.COMPLETE,
    "stopped": TrialState.PRUNED,
    "diverged": TrialState.FAIL,
    "failed": TrialState.FAIL,
}
"""Optuna's state for each of the ledger's."""


def _new_study(sweep: SweepConfig) -> optuna.Study:
    directions = [
        StudyDirection.MAXIMIZE if one.mode == "max" else StudyDirection.MINIMIZE
        for one in sweep.objective
    ]
    return optuna.create_study(study_name=sweep.name, directions=directions)


def _final_state(state: str, objectives: Sequence[float | None] | None) -> TrialState:
    """Optuna's state of a trial that ended; without finite objectives none is complete."""
    final = STATES[state]
    told = objectives or [None]
    finite = all(value is not None and math.isfinite(value) for value in told)
    return final if finite or final != TrialState.COMPLETE else TrialState.FAIL


class SweepStudy:
    """A sweep's Optuna study, which learns from the ledger's events and from nothing else.

    `ask` gives the next trial; everything else arrives through `apply`. `running` maps the number
    of each trial that was suggested and has not ended to its values.
    """

    def __init__(self, sweep: SweepConfig, events: Iterable[Event] = ()) -> None:
        self.study = _new_study(sweep)
        self.running: dict[int, Values] = {}
        self._sweep = sweep
        self._base = base_of(sweep)
        self._metric = sweep.objective[0].metric if len(sweep.objective) == 1 else None
        self._trials: dict[int, optuna.Trial] = {}
        self._reports: dict[int, dict[int, float]] = {}
        self._grid: list[Values] | None = None
        if sweep.search.sampler == "grid":
            points = sweep.search_space.points(self._base)
            self._grid = list(itertools.islice(points, sweep.search.num_trials))
        for event in events:
            self.apply(event)

    @property
    def num_trials(self) -> int:
        """Trials that were suggested so far."""
        return len(self._reports)

    @property
    def max_trials(self) -> int:
        """Trials that there will be: as many as asked for, or all points of a smaller grid."""
        return self._sweep.search.num_trials if self._grid is None else len(self._grid)

    def ask(self) -> tuple[int, Values] | None:
        """Number and values of the next trial, or None when there were as many as asked for."""
        number = self.num_trials
        if number >= self.max_trials:
            return None
        return number, self._open(number, None if self._grid is None else self._grid[number])

    def apply(self, event: Event) -> None:
        """Learn from one event of the ledger; those of other kinds say nothing here.

        As in the ledger, the first report of an epoch counts, and the first end of a trial.

        Raises:
            SweepError: a suggestion that this sweep's space does not have.
        """
        match event["kind"]:
            case "trial_suggested" if event["trial"] >= self.num_trials:
                self._replay(event["trial"], event["values"])
            case "trial_report" if event["trial"] in self.running and self._metric is not None:
                value = event["metrics"].get(self._metric)
                if value is not None and math.isfinite(value):
                    self._reports[event["trial"]].setdefault(event["epoch"], value)
            case "trial_ended" if event["trial"] in self.running:
                self._end(event["trial"], event["state"], event.get("objectives"))

    def _open(self, number: int, fixed: Values | None) -> Values:
        """Start a trial in the study, with values that are fixed or the sampler's own."""
        space = self._sweep.search_space
        with_memory = self._sweep.search.sampler in SAMPLERS_WITH_MEMORY
        if fixed is None or with_memory:
            self.study.sampler = make_sampler(self._sweep, number)
        else:
            self.study.sampler = optuna.samplers.RandomSampler(seed=0)
        if fixed is not None:
            self.study.enqueue_trial(space.own_values(fixed))
        trial = self.study.ask()
        assert trial.number == number, f"trial {number} opened as {trial.number}"
        if with_memory:
            _ = trial.relative_params  # Optuna asks lazily, and for fixed values not at all.
        values = space.suggest(trial, self._base)
        self._trials[number], self._reports[number] = trial, {}
        self.running[number] = values
        return values

    def _replay(self, number: int, values: Values) -> None:
        space = self._sweep.search_space
        own = space.own_values(values)
        known = all(entry.contains(own[name]) for name, entry in space.entries if name in own)
        if number != self.num_trials or not known or self._open(number, values) != values:
            raise SweepError(
                f"ledger of sweep {self._sweep.name!r}: trial {number}: the sweep's space does "
                f"not have {values}; restore the ledger from a copy"
            )

    def _end(self, number: int, state: str, objectives: Sequence[float | None] | None) -> None:
        trial = self._trials.pop(number)
        del self.running[number]
        for epoch, value in sorted(self._reports[number].items()):
            trial.report(value, epoch)
        final = _final_state(state, objectives)
        told = [value for value in objectives or () if value is not None]
        self.study.tell(trial, told if final == TrialState.COMPLETE else None, state=final)


class ReportLike(Protocol):
    """One epoch of a trial, as `tune.ledger.file.Report` has it."""

    @property
    def epoch(self) -> int: ...
    @property
    def metrics(self) -> Mapping[str, float | None]: ...


class TrialLike(Protocol):
    """A trial as far as the ledger has told, as `tune.ledger.file.TrialState` has it."""

    @property
    def number(self) -> int: ...
    @property
    def values(self) -> Mapping[str, Any]: ...
    @property
    def state(self) -> str: ...
    @property
    def reports(self) -> Sequence[ReportLike]: ...
    @property
    def objectives(self) -> Sequence[float | None] | None: ...


def study_of(trials: Iterable[TrialLike], sweep: SweepConfig) -> optuna.Study:
    """The study of a sweep's trials, for looking at: the same states, values and numbers.

    A trial without an end stays RUNNING in it, as the numbers after it would shift without it.
    Suggestions are to be had from `SweepStudy`, which also knows the order of the events.
    """
    study = _new_study(sweep)
    every = distributions(sweep.search_space)
    for trial in sorted(trials, key=lambda trial: trial.number):
        own = sweep.search_space.own_values(trial.values)
        reports = _finite_reports(trial.reports, sweep)
        state = _final_state(trial.state, trial.objectives)
        values = None
        if state == TrialState.COMPLETE:
            values = [value for value in trial.objectives or () if value is not None]
        elif state == TrialState.PRUNED and reports:
            values = [reports[max(reports)]]
        study.add_trial(
            optuna.create_trial(
                state=state,
                values=values,
                params=own,
                distributions={name: every[name] for name in own},
                intermediate_values=reports,
            )
        )
    return study


def _finite_reports(reports: Iterable[ReportLike], sweep: SweepConfig) -> dict[int, float]:
    if len(sweep.objective) > 1:
        return {}
    told = ((report.epoch, report.metrics.get(sweep.objective[0].metric)) for report in reports)
    return {epoch: value for epoch, value in told if value is not None and math.isfinite(value)}
