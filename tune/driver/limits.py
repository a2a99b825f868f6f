"""When a sweep ends before its last trial: a budget that is used up, or nothing gained for long."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable

from magtkd.config import Config
from magtkd.errors import InputError
from magtkd.pipeline import Plan, Source, make_plan
from tune.config import SweepConfig
from tune.engine import Allowance
from tune.ledger import (
    Event,
    StagesRecorded,
    SweepChanged,
    SweepClosed,
    SweepOpened,
    SweepResumed,
    SweepState,
    TestRevealed,
    TrialEnded,
    TrialState,
    TrialStatus,
)
from tune.results import TRAINED, StageSeconds
from tune.space import Candidate

__all__ = ["Limits"]

HOUR = 3600.0
LOOKS_WITHHELD = 3
"""Looks at the engine, one after another, in which nothing may begin and nothing is in training.
Between two trials there may be one."""
FUSION = "fusion"


class Limits:
    """How much of a sweep's budget is used up, and for how long nothing was gained: a function of
    the ledger's events, and of the clock since the last one.

    Args:
        sweep: the sweep.
        events: the ledger's events so far.
        clock: seconds from any start.
    """

    def __init__(
        self,
        sweep: SweepConfig,
        events: Iterable[Event] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sweep, self._search, self._clock = sweep, sweep.search, clock
        self._sign = sweep.objective[0].sign
        self._ran, self._last, self._is_open = 0, 0, False
        self._seen = clock()
        self._spent: dict[tuple[int, str, str], float] = {}
        self._stage_seconds = 0.0
        self._ended: set[int] = set()
        self._best = -math.inf
        self._without_gain, self._gained = 0, 0
        self._planned: dict[int, tuple[Candidate, Config, Plan]] = {}
        self._known, self._num_known = StageSeconds(), 0
        self._looks = 0
        for event in events:
            self.apply(event)

    def apply(self, event: Event) -> None:
        """Learn from the next event of the ledger."""
        self._pass_time(event)
        match event:
            case StagesRecorded():
                for stage, record in event.stages.items():
                    if record.outcome in TRAINED:
                        name = (event.trial, stage, record.key)
                        self._stage_seconds += record.seconds - self._spent.get(name, 0.0)
                        self._spent[name] = record.seconds
            case SweepChanged():  # whoever continues in spite of that wants to see more
                self._without_gain, self._gained = 0, self._ran
            case TrialEnded() if event.trial not in self._ended:
                self._ended.add(event.trial)
                self._planned.pop(event.trial, None)
                self._compare(event)

    def _pass_time(self, event: Event) -> None:
        """Add what passed since the last event, where a driver was at work: `best` writes a line to
        a ledger that no driver has, too."""
        if isinstance(event, TestRevealed):
            return
        if isinstance(event, SweepOpened | SweepResumed):
            self._is_open = True
        elif self._is_open:
            self._ran += event.time - self._last
        self._last, self._seen = event.time, self._clock()
        if isinstance(event, SweepClosed):
            self._is_open = False

    def _compare(self, event: TrialEnded) -> None:
        value = event.objectives[0] if event.objectives else None
        is_complete = event.state == TrialStatus.COMPLETED and value is not None
        signed = self._sign * value if is_complete and value is not None else -math.inf
        if signed > self._best:
            self._best, self._without_gain, self._gained = signed, 0, self._ran
        else:
            self._without_gain += 1

    # --- how much is left ---------------------------------------------------------------------

    @property
    def hours(self) -> float:
        """Hours of the wall clock in which a driver ran."""
        now = self._clock() - self._seen if self._is_open else 0.0
        return (self._ran / 1000 + now) / HOUR

    @property
    def seconds_left(self) -> float | None:
        """Seconds of the wall clock until the budget ends the sweep; None where it has none."""
        limit = self._search.budget.hours
        return None if limit is None else max(0.0, (limit - self.hours) * HOUR)

    def used(self) -> float:
        """The share of the budget's hours that the ledger shows as used, from 0 to 1: what depends
        on it is the same when a sweep is resumed."""
        budget = self._search.budget
        spent = ((budget.hours, self._ran / 1000), (budget.stage_hours, self._stage_seconds))
        return min(1.0, max(one / HOUR / limit if limit else 0.0 for limit, one in spent))

    def reached(self, training: float = 0.0) -> str | None:
        """The setting that ends the sweep now, with what it means, if one does.

        Args:
            training: seconds of training of what runs, which the ledger does not have yet.
        """
        budget, stop = self._search.budget, self._search.stop_when
        if budget.hours is not None and self.hours >= budget.hours:
            return f"search.budget.hours: {budget.hours:g} h are over"
        spent = (self._stage_seconds + training) / HOUR
        if budget.stage_hours is not None and spent >= budget.stage_hours:
            return f"search.budget.stage_hours: {budget.stage_hours:g} h of training are over"
        if self._looks >= LOOKS_WITHHELD:
            name = "stage_hours" if budget.hours is None else "hours"
            return f"search.budget.{name}: no stage that is left would end within it"
        metric = self._sweep.objective[0].metric
        if stop.no_gain_for is not None and self._without_gain >= stop.no_gain_for:
            number = f"{stop.no_gain_for} trial{'' if stop.no_gain_for == 1 else 's'}"
            return f"search.stop_when.no_gain_for: {number} without a better {metric}"
        without = self.hours - self._gained / 1000 / HOUR
        if stop.no_gain_for_hours is not None and without >= stop.no_gain_for_hours:
            hours = f"{stop.no_gain_for_hours:g} h"
            return f"search.stop_when.no_gain_for_hours: {hours} without a better {metric}"
        return None

    def reached_by_trials(self, num_trials: int) -> str | None:
        """As `reached`, once all trials have ended."""
        limit = self._search.budget.trials
        if limit is None or num_trials < limit or limit == self._search.num_trials:
            return None
        return f"search.budget.trials: {limit} trials have ended"

    # --- which stages may begin ---------------------------------------------------------------

    def look(self, *, withheld: bool) -> None:
        """The engine was asked whether all that is left may not begin."""
        self._looks = self._looks + 1 if withheld else 0

    def allowance(self, state: SweepState, source: Source) -> Allowance | None:
        """What the engine may still begin; None where the budget has no hours.

        Args:
            state: the sweep after the last event.
            source: its table.
        """
        budget = self._search.budget
        if budget.hours is None and budget.stage_hours is None:
            return None
        for trial in (*state.ended[self._num_known :], *state.running.values()):
            self._known.add(trial, self._sweep.base)
        self._num_known = len(state.ended)
        known, expected = self._known, dict[str, float]()
        for trial in state.running.values():
            if (planned := self._plan(trial, source)) is None:
                continue
            config, plan = planned
            for stage, key in plan.keys.items():
                if (seconds := known.expected(stage, config)) is not None:
                    expected[key] = seconds.mean
            if plan.fusion_key in expected:  # a session continues where it was saved
                part = max(0.0, 1 - len(trial.reports) / config.fusion.epochs)
                expected[plan.fusion_key] *= part
        limit = budget.stage_hours
        return Allowance(
            seconds=self.seconds_left,
            stage_seconds=None if limit is None else limit * HOUR - self._stage_seconds,
            expected=expected,
        )

    def _plan(self, trial: TrialState, source: Source) -> tuple[Config, Plan] | None:
        """Its configuration and plan; None where its values are not legal together."""
        known = self._planned.get(trial.number)
        if known is None or known[0] != trial.candidate:
            known = None
            with contextlib.suppress(InputError):
                config = trial.candidate.config(self._sweep.base)
                known = trial.candidate, config, make_plan(config, source)
                self._planned[trial.number] = known
        return None if known is None else known[1:]
