"""The sampler that knows what is trained, without Ray, a store or a ledger."""

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from magtkd.errors import ConfigError, SweepError
from tune.config import SweepConfig, check_sweep
from tune.samplers import Columns, CostAwareSearch
from tune.samplers.parzen import Parzen
from tune.samplers.ranking import best_so_far, shares_beaten
from tune.search.study import section_plan
from tune.space import Space

SPACE = {
    "teacher.learning_rate": {"float": [1e-5, 1e-2], "log": True},
    "teacher.hidden_dim": {"choice": [32, 64]},
    "audio.distill.temperature": {
        "float": [1.0, 8.0],
        "log": True,
        "tie": ["video.distill.temperature"],
    },
    "audio.dropout": {"float": [0.1, 0.5], "step": 0.1},
    "fusion.learning_rate": {"float": [1e-5, 1e-2], "log": True},
    "fusion.depth": {"int": [1, 4]},
    "fusion.model": {"choice": ["magt", "concat"]},
    "fusion.num_heads": {"choice": [2, 4], "when": {"fusion.model": "magt"}},
}
COSTS = {"teacher": 10.0, "audio": 3.0, "video": 3.0, "fusion": 4.0}


def problem_of(space=SPACE, seed=0, num_trials=60, **search):
    search |= {"sampler": "cost_aware_tpe", "num_trials": num_trials, "seed": seed}
    return SweepConfig.model_validate({"space": space, "search": search}).problem


def search_of(problem, plan=section_plan):
    return CostAwareSearch(problem, plan, lambda stage, values: COSTS[stage])


def score(values):
    return -sum(
        abs(math.log10(values[name]) + 3)
        for name in ("teacher.learning_rate", "fusion.learning_rate")
    ) - abs(values["audio.distill.temperature"] - 3)


def run(search, num_trials, at_a_time=1, order=None):
    """All suggestions; `at_a_time` trials run together and end in the order that is given."""
    asked, running, draw = [], [], random.Random(order)
    for number in range(num_trials):
        asked.append(search.ask(number, number / 60))
        search.begin(number, asked[-1])
        running.append(number)
        if len(running) == at_a_time:
            draw.shuffle(running)
            for ended in running:
                finish(search, ended, asked[ended])
            running = []
    return asked


def finish(search, number, values):
    last = 9 if number % 3 else 3
    for epoch in range(1, last + 1):
        search.report(number, epoch, score(values) - 1 / epoch)
    search.end(number, has_failed=number % 7 == 3)


# --- what is suggested ------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_suggestions_are_in_the_space_and_distinct(seed):
    problem = problem_of(seed=seed)
    asked = run(search_of(problem), 40, at_a_time=3)
    for values in asked:
        assert problem.space.has(values)
        assert values["audio.distill.temperature"] == values["video.distill.temperature"]
        assert ("fusion.num_heads" in values) == (values["fusion.model"] == "magt")
        assert values["audio.dropout"] in {0.1, 0.2, 0.3, 0.4, 0.5}
    assert len({repr(values) for values in asked}) == len(asked)


def test_upstream_stages_are_shared_and_also_drawn_anew():
    """Stock TPE draws a continuous value anew in each trial."""
    asked = run(search_of(problem_of()), 50)
    teachers = {values["teacher.learning_rate"] for values in asked}
    students = {section_plan(values).keys["audio"] for values in asked}
    assert len({values["fusion.learning_rate"] for values in asked}) == 50
    assert 4 <= len(teachers) <= 20
    assert len(teachers) <= len(students) <= 35


def test_where_early_stages_cost_nothing_they_are_not_kept_for_their_cost():
    problem = problem_of()
    free = CostAwareSearch(problem, section_plan, lambda stage, _: float(stage == "fusion"))
    distinct = [
        len({values["teacher.learning_rate"] for values in run(search, 50)})
        for search in (search_of(problem), free)
    ]
    assert distinct[0] < distinct[1]


@pytest.mark.parametrize(("one", "other"), [(0, 1), (2, 3)])
def test_the_order_in_which_parallel_trials_end_does_not_matter(one, other):
    asked = [run(search_of(problem_of()), 24, at_a_time=4, order=order) for order in (one, other)]
    assert asked[0] == asked[1]


def test_all_of_a_small_space_is_tried_before_anything_twice():
    space = {"teacher.hidden_dim": {"choice": [32, 64]}, "fusion.depth": {"int": [1, 6]}}
    search = CostAwareSearch(problem_of(space), section_plan, lambda stage, _: COSTS[stage])
    asked = []
    for number in range(14):
        asked.append(search.ask(number, number / 60))
        search.begin(number, asked[-1])
        search.report(number, 1, asked[-1]["fusion.depth"])
        search.end(number)
    assert len({repr(values) for values in asked[:12]}) >= 11
    assert len(asked) == 14


def test_values_that_are_not_legal_together_are_not_suggested():
    def plan(values):
        if values.get("fusion.depth", 0) > 2:
            raise ConfigError("fusion.depth: too deep")
        return section_plan(values)

    asked = run(search_of(problem_of(), plan), 30)
    assert {values["fusion.depth"] for values in asked} == {1, 2}


def test_a_trial_with_values_outside_the_space_is_learned_from():
    search = search_of(problem_of())
    outside = {"teacher.learning_rate": 1.0, "teacher.hidden_dim": 48, "fusion.depth": 7}
    search.begin(0, outside)
    search.report(0, 1, 100.0)
    search.end(0)
    asked = [search.ask(number, 0.0) for number in range(1, 4)]
    assert all(problem_of().space.has(values) for values in asked)


def test_several_objectives_are_refused():
    objectives = [{"metric": "dev/weighted_f1"}, {"metric": "dev/loss", "mode": "min"}]
    search = {"sampler": "cost_aware_tpe"}
    sweep = SweepConfig.model_validate({"space": SPACE, "search": search, "objective": objectives})
    with pytest.raises(SweepError, match="cost_aware_tpe takes one objective, not 2; use tpe"):
        check_sweep(sweep)


# --- what remains to be trained ---------------------------------------------------------------


def test_what_is_there_or_in_training_costs_nothing():
    search = search_of(problem_of())
    values = run(search, 12)[-1]
    new = values | {"fusion.learning_rate": 2e-4}
    other = new | {"audio.distill.temperature": 2.0, "video.distill.temperature": 2.0}
    candidates = [search._candidate(one) for one in (new, other)]
    assert search._costs(candidates).tolist() == [4.0, 4.0 + 6.0 / 4]
    search.add_stored(candidates[1].plan.keys[stage] for stage in ("audio", "video"))
    assert search._costs(candidates).tolist() == [4.0, 4.0]


def test_a_prefix_is_kept_to_the_last_bit():
    """Through logarithms and back, a value would have another key."""
    search = search_of(problem_of())
    run(search, 12)
    draw = np.random.default_rng(0)
    density = search._densities(search._ranks(), [])[0]
    prefixes = [one for best in search._prefixes() for one in best]
    assert len(prefixes) > 8
    for prefix in prefixes:
        for candidate in search._candidates(density.sample(draw, prefix.point, 5), prefix.values):
            assert candidate.plan.keys["teacher"] in search._suggested
            assert prefix.values.items() <= candidate.values.items()


# --- order ------------------------------------------------------------------------------------


curves = st.dictionaries(st.integers(1, 5), st.sampled_from([0.0, 1.0, 2.5]), max_size=5)


@given(st.lists(curves, min_size=1, max_size=9))
def test_trials_are_compared_at_the_last_epoch_that_both_have(found):
    def beats(one, other):
        common = min(max(one, default=0), max(other, default=0))
        if not common:
            return float(len(one) > 0 and not other)
        mine, theirs = (
            max((value for epoch, value in curve.items() if epoch <= common), default=-math.inf)
            for curve in (one, other)
        )
        return (mine > theirs) + 0.5 * (mine == theirs)

    expected = [
        sum(beats(one, other) for place, other in enumerate(found) if place != own)
        / max(len(found) - 1, 1)
        for own, one in enumerate(found)
    ]
    measured = shares_beaten(np.array([best_so_far(curve, 5) for curve in found]))
    assert measured.tolist() == pytest.approx(expected)


# --- densities --------------------------------------------------------------------------------


def columns_of(*entries):
    names = ["fusion.dropout", "fusion.learning_rate", "fusion.depth"]
    return Columns(Space.parse(dict(zip(names, entries, strict=False))))


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ({"float": [0.0, 0.7]}, 0.25),
        ({"float": [1e-5, 1e-1], "log": True}, 1e-3),
        ({"float": [0.1, 0.7], "step": 0.1}, 0.3),
        ({"int": [1, 8]}, 8),
        ({"int": [1, 64], "log": True}, 1),
        ({"int": [2, 10], "step": 4}, 6),
        ({"choice": ["a", None, 3]}, None),
    ],
)
def test_values_come_back_from_their_columns(entry, value):
    columns = columns_of(entry)
    point = columns.encode({"fusion.dropout": value})
    assert columns.decode(point)["fusion.dropout"] == pytest.approx(value)
    assert not np.isnan(point).any()
    assert np.isnan(columns.encode({})).all()


@given(st.integers(0, 30), st.integers(0, 9))
def test_a_density_integrates_to_one(number, seed):
    columns = columns_of({"float": [0.0, 1.0]}, {"choice": [1, 2, 3]})
    draw = np.random.default_rng(seed)
    points = np.stack([draw.random(number), draw.integers(0, 3, number)], axis=1)
    points[::4, 0], points[1::4, 1] = np.nan, np.nan
    density = Parzen(points, columns.num_choices)
    grid = (np.arange(2000) + 0.5) / 2000
    total = sum(
        np.exp(density.log_density(np.stack([grid, np.full(2000, one)], axis=1))).mean()
        for one in range(3)
    )
    assert total == pytest.approx(1, rel=1e-3)


def test_draws_follow_the_density_and_keep_what_is_given():
    columns = columns_of({"float": [0.0, 1.0]}, {"choice": [1, 2, 3]})
    points = np.array([[0.2, 0.0], [0.25, 0.0], [0.8, 2.0], [0.85, 2.0]])
    density = Parzen(points, columns.num_choices)
    draw = np.random.default_rng(0)
    free = density.sample(draw, np.array([np.nan, np.nan]), 20_000)
    counts, _ = np.histogram(free[:, 0], bins=20, range=(0, 1))
    centres = (np.arange(20) + 0.5) / 20
    expected = np.zeros(20)
    for one in range(3):
        expected += np.exp(density.log_density(np.stack([centres, np.full(20, one)], axis=1)))
    assert counts / 1000 == pytest.approx(expected, abs=0.1)
    given_choice = density.sample(draw, np.array([np.nan, 2.0]), 5000)
    assert set(given_choice[:, 1]) == {2.0}
    assert np.median(given_choice[:, 0]) > np.median(free[:, 0]) + 0.1
