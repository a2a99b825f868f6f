"""How long a sweep still takes: right where all trials cost the same, and never growing while
nothing ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magtkd.pipeline import Outcome, StageRecord
from tune.ledger import (
    EpochReported,
    StagesRecorded,
    SweepOpened,
    SweepState,
    TrialEnded,
    TrialStatus,
    TrialSuggested,
)
from tune.results.costs import device_cost
from tune.results.time_left import TimeLeft, work_done, work_left

EPOCHS = 4


def new_state():
    state = SweepState()
    config = {"fusion": {"epochs": EPOCHS}}
    state.apply(SweepOpened(time=1, sweep_id="i", name="toy", config=config))
    return state


def suggest(state, number):
    state.apply(TrialSuggested(time=2, trial=number, values={}))


def stage(state, number, name, seconds, outcome=Outcome.TRAINED, **fields):
    record = StageRecord(f"{name}{number}", outcome, seconds, **fields)
    state.apply(StagesRecorded(time=3, trial=number, stages={name: record}))


def epochs(state, number, count):
    for epoch in range(1, count + 1):
        state.apply(EpochReported(time=4, trial=number, epoch=epoch, metrics={}))


def end(state, number):
    state.apply(TrialEnded(time=5, trial=number, state=TrialStatus.COMPLETED))


def whole(state, number, teacher=10.0, fusion=8.0, outcome=Outcome.TRAINED):
    suggest(state, number)
    stage(state, number, "teacher", teacher if outcome == Outcome.TRAINED else 0.0, outcome)
    epochs(state, number, EPOCHS)
    stage(state, number, "fusion", fusion)
    end(state, number)


def test_nothing_is_known_before_the_first_end():
    state = new_state()
    suggest(state, 0)
    assert work_left(state, 5) is None
    assert TimeLeft(state, 5).seconds is None


def test_trials_of_equal_cost():
    state = new_state()
    for number in range(3):
        whole(state, number)
    assert work_done(state) == 3 * 18
    assert work_left(state, 10) == 7 * 18


def test_a_running_trial_needs_what_it_lacks():
    state = new_state()
    whole(state, 0)
    suggest(state, 1)
    assert work_left(state, 2) == 18  # its teacher, and all epochs
    stage(state, 1, "teacher", 10.0)
    assert work_left(state, 2) == 8
    epochs(state, 1, 3)
    assert work_left(state, 2) == 2
    assert work_done(state) == 18 + 10 + 6


def test_trials_to_come_reuse_as_recent_ones_did():
    state = new_state()
    whole(state, 0)
    for number in range(1, 4):
        whole(state, number, outcome=Outcome.REUSED)
    assert work_left(state, 6) == 2 * 8


def test_two_workers_need_half_the_time():
    state, now = new_state(), [0.0]
    left = TimeLeft(state, 10, clock=lambda: now[0])
    whole(state, 0)
    whole(state, 1)
    now[0] = 18.0  # both at once
    left.on_end()
    assert left.seconds == pytest.approx(8 * 18 / 2)
    now[0] += 10
    assert left.seconds == pytest.approx(8 * 18 / 2 - 10)


def test_where_all_is_reused_trials_count():
    state, now = new_state(), [0.0]
    left = TimeLeft(state, 4, clock=lambda: now[0])
    suggest(state, 0)
    stage(state, 0, "fusion", 0.0, Outcome.REUSED)
    end(state, 0)
    now[0] = 2.0
    left.on_end()
    assert left.seconds == pytest.approx(6.0)


actions = st.lists(
    st.one_of(
        st.tuples(st.just("pass"), st.floats(0, 100)),
        st.tuples(st.sampled_from(["suggest", "teacher", "epoch", "end"]), st.floats(0.1, 50)),
    ),
    max_size=40,
)


@given(actions)
def test_it_never_grows_while_nothing_ends(actions):
    state, now = new_state(), [0.0]
    left = TimeLeft(state, 20, clock=lambda: now[0])
    number, last = -1, None
    for action, amount in actions:
        if action == "pass":
            now[0] += amount
        elif action == "suggest" or number < 0:
            number += 1
            suggest(state, number)
        elif not state.trials[number].has_ended:
            if action == "teacher":
                stage(state, number, "teacher", amount)
            elif action == "epoch":
                epochs(state, number, 1)
            else:
                stage(state, number, "fusion", amount)
                end(state, number)
                left.on_end()
                last = None
        seconds = left.seconds
        if last is not None:
            assert seconds is not None
            assert 0 <= seconds <= last
        last = seconds


def test_an_interrupted_session_is_not_over():
    state = new_state()
    suggest(state, 0)
    stage(state, 0, "fusion", 20.0)
    epochs(state, 0, 10)
    end(state, 0)
    suggest(state, 1)
    epochs(state, 1, 4)
    before = work_done(state), work_left(state, 2)
    stage(state, 1, "fusion", 7.0, Outcome.STOPPED)
    assert (work_done(state), work_left(state, 2)) == before


def test_hours_are_those_of_whole_devices():
    state = new_state()
    suggest(state, 0)
    stage(state, 0, "teacher", 7200.0, device="NVIDIA H100", share=1.0)
    stage(state, 0, "fusion", 3600.0, device="NVIDIA H100", share=0.25)
    suggest(state, 1)
    stage(state, 1, "teacher", 0.0, Outcome.REUSED, saved=7200.0, device="NVIDIA H100", share=1.0)
    stage(state, 1, "fusion", 1800.0, device="CPU", share=4.0)
    stage(state, 1, "audio", 100.0)  # of an older ledger
    suggest(state, 2)
    gone = StageRecord("teacher0", Outcome.REUSED, 0.0)  # its artifact is
    state.apply(StagesRecorded(time=3, trial=2, stages={"teacher": gone}))
    found = device_cost(state)
    assert (found["NVIDIA H100"].hours_trained, found["NVIDIA H100"].hours_saved) == (2.25, 4.0)
    assert (found["CPU"].hours_trained, found["CPU"].hours_saved) == (2.0, 0.0)
    assert set(found) == {"NVIDIA H100", "CPU"}
