"""A sweep in simulated time: the study, the sampler and the scheduler are the real ones, and only
training is replaced by a problem that knows what it would have given and cost."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Protocol

from magtkd.pipeline import Outcome, Plan, StageRecord
from tune.config import SweepConfig
from tune.ledger import (
    EpochReported,
    Event,
    StagesRecorded,
    TrialEnded,
    TrialsLearned,
    TrialStatus,
    TrialSuggested,
)
from tune.samplers import EarlierTrial
from tune.search import SweepStudy
from tune.space import Assignment, Values

__all__ = ["Problem", "Simulated", "learned_from", "simulate"]

STOP = "STOP"


class Problem(Protocol):
    """What stands for training."""

    def plan(self, values: Values) -> Plan:
        """The stages of a trial and their keys, the last one its own."""

    def seconds(self, stage: str, values: Values) -> float:
        """What training a stage takes; of the last one, all epochs."""

    def curve(self, values: Values) -> Sequence[float]:
        """Dev scores of all epochs of the last stage."""


@dataclass(frozen=True)
class Simulated:
    """A trial that ended: `spent` are the stage-seconds of the whole sweep until then."""

    number: int
    values: Values
    spent: float
    score: float
    """The best on dev."""
    is_completed: bool
    curve: Sequence[float]
    """Dev scores of the epochs that it was trained for."""


@dataclass
class _Trial:
    number: int
    values: Values
    curve: Sequence[float]
    seconds_per_epoch: float
    epoch: int = 0


class _Sweep:
    def __init__(
        self,
        sweep: SweepConfig,
        problem: Problem,
        *,
        reuse: bool,
        most: float,
        learned: Sequence[TrialsLearned],
    ) -> None:
        self.sweep, self.problem, self.reuse, self.most = sweep, problem, reuse, most
        self.metric = sweep.objective[0].metric
        self.study = SweepStudy(sweep, learned, plan=problem.plan)
        self.scheduler: Any = sweep.scheduler.build(sweep.problem)
        self.ready: dict[str, float] = {}
        self.spent = 0.0
        self.waiting: list[tuple[float, int, _Trial]] = []
        self.order = itertools.count()
        self.ended: list[Simulated] = []

    def apply(self, event: Event) -> None:
        self.study.apply(event)

    def run(self) -> list[Simulated]:
        for _ in range(self.sweep.search.max_concurrent):
            self.begin(0.0)
        while self.waiting and self.spent < self.most:
            now, _, trial = heapq.heappop(self.waiting)
            self.advance(now, trial)
        return self.ended

    def begin(self, now: float) -> None:
        asked = self.study.ask()
        if asked is None:
            return
        number, candidate = asked
        values = candidate.values
        self.apply(TrialSuggested(trial=number, values=values))
        self.scheduler.on_trial_add(None, _named(number))
        plan = self.problem.plan(values)
        *upstream, last = plan.keys
        times: dict[str, float] = {}
        records: dict[str, StageRecord] = {}
        for stage in upstream:
            start = max((times[one] for one in plan.reads[stage]), default=now)
            key, seconds = plan.keys[stage], self.problem.seconds(stage, values)
            if self.reuse and key in self.ready:
                times[stage] = max(start, self.ready[key])
                records[stage] = StageRecord(key, Outcome.REUSED, 0.0, saved=seconds)
            else:
                times[stage] = self.ready[key] = start + seconds
                records[stage] = StageRecord(key, Outcome.TRAINED, seconds)
                self.spent += seconds
        self.apply(StagesRecorded(trial=number, stages=records))
        curve = self.problem.curve(values)
        each = self.problem.seconds(last, values) / len(curve)
        trial = _Trial(number, values, curve, each)
        self.push(max(times.values(), default=now) + each, trial)

    def push(self, time: float, trial: _Trial) -> None:
        heapq.heappush(self.waiting, (time, next(self.order), trial))

    def advance(self, now: float, trial: _Trial) -> None:
        self.spent += trial.seconds_per_epoch
        trial.epoch += 1
        metrics: dict[str, float | None] = {self.metric: trial.curve[trial.epoch - 1]}
        self.apply(EpochReported(trial=trial.number, epoch=trial.epoch, metrics=metrics))
        is_last = trial.epoch == len(trial.curve)
        result = {**metrics, "epoch": trial.epoch}
        if not is_last:
            decision = self.scheduler.on_trial_result(None, _named(trial.number), result)
            if decision != STOP:
                self.push(now + trial.seconds_per_epoch, trial)
                return
        else:
            self.scheduler.on_trial_complete(None, _named(trial.number), result)
        best = max(trial.curve[: trial.epoch])
        plan = self.problem.plan(trial.values)
        last = list(plan.keys)[-1]
        outcome = Outcome.TRAINED if is_last else Outcome.STOPPED
        record = StageRecord(plan.keys[last], outcome, trial.epoch * trial.seconds_per_epoch)
        self.apply(StagesRecorded(trial=trial.number, stages={last: record}))
        state = TrialStatus.COMPLETED if is_last else TrialStatus.STOPPED
        self.apply(TrialEnded(trial=trial.number, state=state, objectives=[best]))
        seen = trial.curve[: trial.epoch]
        self.ended.append(Simulated(trial.number, trial.values, self.spent, best, is_last, seen))
        self.begin(now)


def _named(number: int) -> Any:
    return SimpleNamespace(config={Assignment.NUMBER: number})


def simulate(
    sweep: SweepConfig,
    problem: Problem,
    *,
    reuse: bool = True,
    most: float = float("inf"),
    learned: Sequence[TrialsLearned] = (),
) -> list[Simulated]:
    """Run a sweep; the trials that ended, in their order.

    Args:
        sweep: its configuration.
        problem: what stands for training.
        reuse: whether a stage is trained once for all trials.
        most: stage-seconds after which nothing more is begun.
        learned: earlier sweeps that the sampler knows; see `learned_from`.
    """
    return _Sweep(sweep, problem, reuse=reuse, most=most, learned=learned).run()


def learned_from(trials: Sequence[Simulated], *, is_same: bool) -> TrialsLearned:
    """A simulated sweep as what another one learns from.

    Args:
        trials: of the earlier sweep.
        is_same: whether scores of the two can be compared.
    """
    earlier = [EarlierTrial(one.values, dict(enumerate(one.curve, 1))) for one in trials]
    return TrialsLearned(source="earlier", is_same=is_same, trials=earlier)
