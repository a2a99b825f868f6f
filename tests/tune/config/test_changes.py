"""What of a sweep may change after it was begun."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magtkd.errors import ConfigError, SweepError
from tune.config import SweepConfig, changed_sweep, differences, may_change, with_changes

TREES = st.recursive(
    st.integers(0, 3),
    lambda inner: st.dictionaries(st.sampled_from(["a", "b", "c.d"]), inner, max_size=3),
    max_leaves=8,
)


@given(TREES, TREES)
def test_two_trees_differ_where_their_values_do(old: Any, new: Any) -> None:
    assert any(differences(old, new)) == (old != new)
    for name, before, after in differences(old, new):
        assert before != after
        assert name or not (isinstance(old, dict) and isinstance(new, dict))


def test_what_is_changed_is_not_the_tree_that_is_given() -> None:
    tree = {"search": {"num_trials": 20, "budget": None}}
    changed = with_changes(tree, {"search.budget.hours": 2, "search.num_trials": 3})
    assert changed == {"search": {"num_trials": 3, "budget": {"hours": 2}}}
    assert tree == {"search": {"num_trials": 20, "budget": None}}


BUDGET = {"hours": None, "stage_hours": None, "trials": None}


def sweep_of(**sections: Any) -> SweepConfig:
    tree = {"name": "mosi", "space": {"fusion.learning_rate": {"float": [1e-4, 1e-2]}}}
    return SweepConfig.model_validate({**tree, **sections})


@pytest.mark.parametrize(
    ("overrides", "changes"),
    [
        ([], {}),
        (["search.num_trials=20", "search.sampler=tpe", "seed=0"], {}),
        (
            ["search.num_trials=100", "search.budget.hours=2"],
            {"search.num_trials": 100, "search.budget": BUDGET | {"hours": 2.0}},
        ),
        (
            ["search.stop_when={no_gain_for: 9}"],
            {"search.stop_when": {"no_gain_for": 9, "no_gain_for_hours": None}},
        ),
        (["search.max_concurrent=4"], {"search.max_concurrent": 4}),
        (
            ["search={num_trials: null, budget: {hours: 3}}"],
            {"search.num_trials": None, "search.budget": BUDGET | {"hours": 3.0}},
        ),
    ],
)
def test_what_changes_no_trial_may_change(overrides: list[str], changes: dict[str, Any]) -> None:
    sweep = sweep_of()
    changed, found = changed_sweep(sweep, overrides)
    assert found == changes
    assert all(may_change(name) for name in found)
    tree = with_changes(sweep.model_dump(mode="json"), found)
    assert SweepConfig.model_validate(tree) == changed


def test_what_a_mapping_has_lost_is_lost() -> None:
    resources = {"fusion": {"custom": {"node:10.0.0.1": 1, "licence": 2}}}
    sweep = sweep_of(resources=resources)
    changed, found = changed_sweep(sweep, ["resources.fusion.custom={licence: 1}"])
    assert changed.resources.fusion.custom == {"licence": 1.0}
    tree = with_changes(sweep.model_dump(mode="json"), found)
    assert SweepConfig.model_validate(tree) == changed


@pytest.mark.parametrize(
    ("override", "place"),
    [
        ("seed=1", "seed: 1"),
        ("search.seed=1", r"search\.seed: 1"),
        ("search.sampler=random", r"search\.sampler: \"random\""),
        ("objective={metric: dev/accuracy}", r"objective: \["),
        ("space={fusion.depth: {int: [1, 3]}}", r"space\.fusion\.learning_rate: null"),
        ("data.path=other.parquet", r"data\.path: "),
        ("teacher.epochs=3", r"teacher\.epochs: 3"),
        ("scheduler.kind=asha", r"scheduler\."),
        ("name=other", r"name: \"other\""),
    ],
)
def test_what_trials_depend_on_may_not(override: str, place: str) -> None:
    message = (
        rf"^{place}.*: sweep 'mosi' was begun with .*; start a new sweep with search.learn_from"
    )
    with pytest.raises(SweepError, match=message) as raised:
        changed_sweep(sweep_of(), [override])
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"search": {"sampler": "nsga2"}},
            "40: search.sampler: nsga2: its population is a fifth of",
        ),
        (
            {"scheduler": {"kind": "pbt"}, "search": {"max_concurrent": 40}},
            "40: scheduler.kind: pbt: its population is search.num_trials, which cannot change",
        ),
    ],
)
@pytest.mark.parametrize("override", ["search.num_trials=40", "search.budget.trials=5"])
def test_the_number_of_trials_may_not_where_it_was_made_use_of(
    sections: dict[str, Any], message: str, override: str
) -> None:
    message = message.replace("40", override.rpartition("=")[2], 1)
    with pytest.raises(SweepError, match=f"search.num_trials: {message}"):
        changed_sweep(sweep_of(**sections), [override])


def test_a_change_is_checked_as_a_whole() -> None:
    with pytest.raises(ConfigError, match=r"sweep 'mosi': search\.budget\.hour: unknown key; did"):
        changed_sweep(sweep_of(), ["search.budget.hour=1"])
    with pytest.raises(SweepError, match=r"search\.num_trials: null, and there is no budget"):
        changed_sweep(sweep_of(), ["search.num_trials=null"])
