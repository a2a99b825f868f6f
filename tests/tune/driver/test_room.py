"""How many trials fit on the driver's node."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tune.config import SweepConfig
from tune.driver.room import SHARE, TRIAL_BYTES, trials_at_a_time

SPACE = {"fusion.learning_rate": {"float": [1e-5, 1e-3], "log": True}}


def sweep_of(kind="fifo", **search):
    search = {"num_trials": 200, "max_concurrent": 200} | search
    return SweepConfig.model_validate(
        {"space": SPACE, "scheduler": {"kind": kind}, "search": search, "fusion": {"epochs": 9}}
    )


@given(asked=st.integers(1, 300), free=st.floats(0, 1e12) | st.just(float("inf")))
def test_as_many_as_fit_but_one_at_least(asked, free):
    number, warning = trials_at_a_time(sweep_of(max_concurrent=asked), free)
    assert 1 <= number <= asked
    assert number == 1 or number * TRIAL_BYTES <= SHARE * free or not warning
    if number < asked:
        assert (number + 1) * TRIAL_BYTES > SHARE * free
        assert f"{number} run at a time" in warning
        assert "\n" not in warning


def test_trials_that_there_will_not_be_need_no_memory():
    assert trials_at_a_time(sweep_of(num_trials=2), 3 * TRIAL_BYTES) == (200, "")


def test_trials_that_wait_for_each_other_all_run():
    number, warning = trials_at_a_time(sweep_of("pbt"), 10 * TRIAL_BYTES)
    assert number == 200
    assert "scheduler pbt needs them all" in warning
