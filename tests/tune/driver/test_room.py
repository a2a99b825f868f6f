"""How many trials fit on the driver's node."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune.config import SweepConfig
from tune.driver import room
from tune.driver.room import SHARE, TRIAL_BYTES, room_for_trials, trials_at_a_time

SPACE = {"fusion.learning_rate": {"float": [1e-5, 1e-3], "log": True}}


def sweep_of(kind="fifo", resources=None, **search):
    search = {"num_trials": 200, "max_concurrent": 200} | search
    tree = {"space": SPACE, "scheduler": {"kind": kind}, "search": search, "fusion": {"epochs": 9}}
    return SweepConfig.model_validate(tree | {"resources": resources or {}})


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


@pytest.mark.parametrize(
    ("elsewhere", "resources", "shares_files", "is_spread"),
    [
        ([], {}, True, False),  # one node
        ([1e8], {}, True, False),  # too small for one trial
        ([1e10, 1e10], {}, True, True),
        # A stage that asks for memory might find all of it taken.
        ([1e10, 1e10], {"teacher": {"memory": "1GiB"}}, True, False),
        # What the autoscaler adds, it removes.
        ([1e10, 1e10], {"node_types": {"gpu": {"cpu": 1}}}, True, False),
        ([1e10, 1e10], {}, False, False),  # population based training needs files
    ],
)
def test_trials_are_on_all_nodes_only_where_that_is_safe(
    monkeypatch, elsewhere, resources, shares_files, is_spread
):
    monkeypatch.setattr(room, "free_bytes", lambda: 10 * TRIAL_BYTES)
    monkeypatch.setattr(room, "_memory_elsewhere", lambda: elsewhere)
    monkeypatch.setattr(room.ray.util, "get_node_ip_address", lambda: "10.0.0.1")
    found = room_for_trials(sweep_of("pbt", resources, num_trials=40), shares_files=shares_files)
    assert list(found.resources) == (["memory"] if is_spread else ["node:10.0.0.1"])
    if is_spread:
        assert found.resources["memory"] * SHARE >= TRIAL_BYTES - 1
        assert found.warning == ""
    else:
        assert "are free on the node; scheduler pbt needs them all" in found.warning
