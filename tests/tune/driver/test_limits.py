"""When a sweep ends before its last trial: a function of its ledger and of the clock."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magtkd.data import read_corpus
from magtkd.metrics import Scores
from magtkd.pipeline import StageRecord, source_of
from tune.config import SweepConfig
from tune.driver.limits import Limits
from tune.ledger import (
    EpochReported,
    Event,
    StagesRecorded,
    SweepChanged,
    SweepClosed,
    SweepEnd,
    SweepOpened,
    SweepResumed,
    TestRevealed,
    TrialEnded,
    TrialStatus,
    TrialSuggested,
    fold,
)

HOUR = 3_600_000  # milliseconds
VALUES = {"fusion.dropout": 0.2}


class Clock:
    """Seconds, which pass as a test says."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def sweep_with(objective: str = "dev/accuracy", **search: Any) -> SweepConfig:
    return SweepConfig.model_validate(
        {
            "name": "toy",
            "objective": {"metric": objective},
            "data": {"synthetic": {"num_dialogues": 11, "mean_length": 3}},
            "search": search,
            "space": {"fusion.dropout": {"float": [0.0, 0.9]}},
        }
    )


def opened(sweep: SweepConfig) -> SweepOpened:
    return SweepOpened(time=HOUR, name="toy", config=sweep.model_dump(mode="json"))


def ended(number: int, value: float | None, time: int = 2 * HOUR) -> list[Event]:
    state = TrialStatus.STOPPED if value is None else TrialStatus.COMPLETED
    end = TrialEnded(time=time, trial=number, state=state, objectives=[value])
    return [TrialSuggested(time=time, trial=number, values=VALUES), end]


def trained(number: int, stage: str, seconds: float, outcome: str = "trained") -> StagesRecorded:
    key = f"{stage}-{number}"
    stages = {stage: StageRecord(key, outcome, seconds)}  # type: ignore[arg-type]
    return StagesRecorded(time=2 * HOUR, trial=number, stages=stages)


def test_hours_are_those_in_which_a_driver_ran() -> None:
    sweep, clock = sweep_with(budget={"hours": 4}), Clock()
    limits = Limits(sweep, [opened(sweep)], clock)
    clock.seconds += 3600
    assert limits.hours == 1.0  # no event yet: by the clock
    limits.apply(TrialSuggested(time=3 * HOUR, trial=0, values=VALUES))
    assert limits.hours == 2.0  # by the ledger, from there on by the clock
    limits.apply(SweepClosed(time=4 * HOUR, reason=SweepEnd.INTERRUPTED))
    clock.seconds += 3600
    limits.apply(TestRevealed(time=90 * HOUR, trial=0, test=Scores(0.5, 0.5)))
    assert limits.hours == 3.0  # nothing ran
    limits.apply(SweepResumed(time=100 * HOUR))
    assert (limits.hours, limits.seconds_left, limits.reached()) == (3.0, 3600.0, None)
    clock.seconds += 3600
    assert limits.reached() == "search.budget.hours: 4 h are over"
    # Killed here: what passed since the last event is not known, and what follows is counted.
    limits.apply(SweepResumed(time=200 * HOUR))
    assert limits.hours == 3.0


def test_hours_of_training_count_each_training_once() -> None:
    sweep = sweep_with(budget={"stage_hours": 1})
    limits = Limits(sweep, [opened(sweep), *ended(0, 0.5)])
    limits.apply(trained(0, "teacher", 1800))
    limits.apply(trained(0, "teacher", 1800))  # as a resumed sweep may find it again
    limits.apply(trained(1, "teacher", 0, "reused"))
    limits.apply(trained(1, "fusion", 1700, "stopped"))
    assert limits.reached() is None
    assert limits.reached(training=99) is None
    assert limits.reached(training=100) == ("search.budget.stage_hours: 1 h of training are over")
    limits.apply(trained(2, "audio", 100))
    assert limits.reached() is not None


@given(st.lists(st.none() | st.sampled_from([0.1, 0.2, 0.3, 0.4]), max_size=12))
def test_trials_without_a_gain(values: list[float | None]) -> None:
    """Ends at the first trial that is the third without a better one, replayed or not."""
    for metric, sign in (("dev/accuracy", 1), ("dev/loss", -1)):
        sweep = sweep_with(metric, stop_when={"no_gain_for": 3})
        limits, events = Limits(sweep, [opened(sweep)]), [opened(sweep)]
        best, without = -1.0e9, 0
        for number, value in enumerate(values):
            news = ended(number, None if value is None else sign * value)
            events += news  # type: ignore[arg-type]
            for event in news:
                limits.apply(event)
            is_better = value is not None and value > best
            best, without = (value, 0) if is_better else (best, without + 1)  # type: ignore[assignment]
            reason = f"search.stop_when.no_gain_for: 3 trials without a better {metric}"
            assert limits.reached() == (reason if without >= 3 else None)
            assert Limits(sweep, events).reached() == limits.reached()


def test_a_change_begins_the_count_anew() -> None:
    sweep = sweep_with(stop_when={"no_gain_for": 2, "no_gain_for_hours": 5})
    events = [opened(sweep), *ended(0, 0.5), *ended(1, 0.4), *ended(2, 0.4, 5 * HOUR)]
    assert Limits(sweep, events).reached() is not None
    events += [SweepResumed(time=9 * HOUR), SweepChanged(time=9 * HOUR, changes={})]
    limits = Limits(sweep, [*events, *ended(3, 0.4, 10 * HOUR)], Clock())
    assert (limits.hours, limits.reached()) == (5.0, None)
    for event in ended(4, 0.5, 10 * HOUR):  # as good as the best is no better
        limits.apply(event)
    assert limits.reached() is not None


def test_hours_without_a_gain() -> None:
    sweep, clock = sweep_with(stop_when={"no_gain_for_hours": 2}), Clock()
    limits = Limits(sweep, [opened(sweep), *ended(0, 0.5, 3 * HOUR)], clock)
    assert (limits.hours, limits.reached()) == (2.0, None)
    for event in ended(1, 0.4, 4 * HOUR):
        limits.apply(event)
    assert limits.reached() is None
    clock.seconds += 3600
    assert limits.reached() == (
        "search.stop_when.no_gain_for_hours: 2 h without a better dev/accuracy"
    )


@pytest.mark.parametrize(
    ("search", "reason"),
    [
        ({"budget": {"trials": 2}}, "search.budget.trials: 2 trials have ended"),
        ({"num_trials": 9, "budget": {"trials": 2}}, "search.budget.trials: 2 trials have ended"),
        ({"num_trials": 2, "budget": {"trials": 2}}, None),
        ({"num_trials": 2, "budget": {"trials": 3}}, None),
        ({"num_trials": 2}, None),
    ],
)
def test_a_number_of_trials_ends_it_where_it_is_the_least(
    search: dict[str, Any], reason: str | None
) -> None:
    sweep = sweep_with(**search)
    assert sweep.search.most_trials == 2
    assert Limits(sweep).reached_by_trials(2) == reason


def test_what_stages_may_begin() -> None:
    sweep = sweep_with(budget={"hours": 2, "stage_hours": 1}, num_trials=5)
    source = source_of(read_corpus(sweep.data))
    suggested = TrialSuggested(time=2 * HOUR, trial=2, values={"fusion.dropout": 0.3})
    events: list[Event] = [opened(sweep), *ended(0, 0.5), *ended(1, 0.5)]
    events += [trained(0, "teacher", 40), trained(0, "fusion", 90), trained(1, "fusion", 30)]
    events += [suggested]
    limits = Limits(sweep, events, Clock())
    allowance = limits.allowance(fold(events), source)
    assert allowance is not None
    assert (allowance.seconds, allowance.stage_seconds) == (3600.0, 3600.0 - 160)
    keys = suggested.candidate.plan(sweep.base, source).keys
    assert allowance.expected == {keys["teacher"]: 40, keys["fusion"]: 60}
    # What a fusion has done already it need not do again.
    half = sweep.fusion.epochs // 2
    events += [EpochReported(trial=2, epoch=one + 1, metrics={}) for one in range(half)]
    allowance = limits.allowance(fold(events), source)
    assert allowance is not None
    expected = 60 * (1 - half / sweep.fusion.epochs)
    assert allowance.expected[keys["fusion"]] == pytest.approx(expected)
    assert Limits(sweep_with(budget={"trials": 3})).allowance(fold(events), source) is None


def test_a_sweep_ends_where_nothing_may_begin() -> None:
    limits = Limits(sweep_with(budget={"stage_hours": 1}))
    for withheld in (True, True, False, True, True):
        limits.look(withheld=withheld)
        assert limits.reached() is None
    limits.look(withheld=True)
    assert (
        limits.reached() == "search.budget.stage_hours: no stage that is left would end within it"
    )
