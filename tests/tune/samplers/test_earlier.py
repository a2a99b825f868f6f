"""What the cost-aware sampler makes of priors and of earlier sweeps."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune.config import SweepConfig
from tune.samplers import Columns, CostAwareSearch, EarlierTrial
from tune.samplers.elsewhere import Elsewhere
from tune.samplers.parzen import Parzen
from tune.search.study import section_plan
from tune.space import Space

SPACE = {
    "teacher.dropout": {"float": [0.0, 0.7]},
    "fusion.dropout": {"float": [0.0, 0.7]},
    "fusion.depth": {"int": [1, 4]},
    "fusion.model": {"choice": ["magt", "concat"]},
}


def search_of(space=None, seed=0):
    sweep = SweepConfig.model_validate(
        {"space": space or SPACE, "search": {"sampler": "cost_aware_tpe", "seed": seed}}
    )
    return CostAwareSearch(sweep.problem, section_plan, lambda stage, values: 1.0)


def trials_around(best, number, seed=0):
    """Trials whose score falls with the distance of both dropouts from a value."""
    draw, trials = np.random.default_rng(seed), []
    for _ in range(number):
        one, other = draw.uniform(0, 0.7, 2).tolist()
        values = {"teacher.dropout": one, "fusion.dropout": other, "fusion.depth": 1}
        score = -abs(one - best) - abs(other - best)
        trials.append(EarlierTrial({**values, "fusion.model": "magt"}, {1: score - 1, 2: score}))
    return trials


def drive(search, best, number):
    asked = []
    for trial in range(number):
        asked.append(search.ask(trial, 0.0))
        search.begin(trial, asked[-1])
        score = -sum(abs(asked[-1][name] - best) for name in ("teacher.dropout", "fusion.dropout"))
        search.report(trial, 2, score)
        search.end(trial)
    return asked


def distance(asked, best):
    return float(np.mean([abs(values["fusion.dropout"] - best) for values in asked]))


@pytest.mark.parametrize("is_same", [True, False])
def test_the_first_suggestions_are_near_what_was_good_before(is_same):
    distances = []
    for learned in (False, True):
        firsts = []
        for seed in range(10):
            search = search_of(seed=seed)
            if learned:
                search.learn(trials_around(0.1, 60, seed), is_same=is_same)
            firsts.append(search.ask(0, 0.0))
        distances.append(distance(firsts, 0.1))
    assert distances[1] < 0.6 * distances[0]


@pytest.mark.parametrize("is_same", [True, False])
def test_own_trials_soon_count_more_than_a_history_that_misleads(is_same):
    search = search_of()
    search.learn(trials_around(0.65, 60), is_same=is_same)
    asked = drive(search, 0.1, 60)
    assert distance(asked[40:], 0.1) < 0.15
    assert distance(asked[40:], 0.1) < distance(asked[40:], 0.65)


@pytest.mark.parametrize("is_same", [True, False])
def test_a_history_without_trials_changes_nothing(is_same):
    search = search_of()
    search.learn([], is_same=is_same)
    assert drive(search, 0.1, 15) == drive(search_of(), 0.1, 15)


@given(st.integers(2, 40), st.integers(0, 9))
def test_agreement_is_1_for_the_same_order_and_0_for_the_opposite_one(number, seed):
    points = np.array([[one] for one in np.linspace(0, 1, 50)])
    elsewhere = Elsewhere(points, points, np.array([0]))
    assert elsewhere.agreement(np.array([])) == pytest.approx(0.8)
    own = np.random.default_rng(seed).random(number)
    for one in own:
        elsewhere.expect(np.array([one]))
    running = np.full(number, np.nan)
    assert elsewhere.agreement(running) == pytest.approx(0.8)
    order = np.array(elsewhere._expected)
    assert elsewhere.agreement(order) == pytest.approx((2.4 + number) / (3 + number))
    assert elsewhere.agreement(-order) == pytest.approx(max((2.4 - number) / (3 + number), 0))
    assert np.corrcoef(order, own)[0, 1] > 0
    weights = [elsewhere.weight(elsewhere.agreement(one), number) for one in (order, -order)]
    assert 0 < weights[0] < 30 / 50
    assert weights[1] < weights[0]


# --- priors -----------------------------------------------------------------------------------


def with_priors(confidence, **priors):
    entries = {name.replace("__", "."): value for name, value in priors.items()}
    return {
        name: {**entry, "prior": entries[name], "prior_confidence": confidence}
        if name in entries
        else entry
        for name, entry in SPACE.items()
    }


@pytest.mark.parametrize(("confidence", "near"), [("low", 0.32), ("medium", 0.3), ("high", 0.24)])
def test_draws_are_near_a_prior_the_more_so_the_surer_it_is(confidence, near):
    space = with_priors(confidence, fusion__dropout=0.1, fusion__model="concat")
    firsts = [
        values for seed in range(10) for values in drive(search_of(space, seed), 0.35, 10)[:10]
    ]
    without = [values for seed in range(10) for values in drive(search_of(seed=seed), 0.35, 10)]
    assert distance(firsts, 0.1) < near
    assert distance(firsts, 0.1) < distance(without, 0.1)
    shares = [
        np.mean([values["fusion.model"] == "concat" for values in asked])
        for asked in (firsts, without)
    ]
    assert shares[0] > shares[1] + 0.1


def test_a_prior_counts_less_the_more_trials_there_are():
    space = with_priors("high", fusion__dropout=0.65, teacher__dropout=0.65)
    asked = drive(search_of(space), 0.1, 60)
    assert distance(asked[:10], 0.65) < distance(asked[:10], 0.1)
    assert distance(asked[40:], 0.1) < 0.15


@given(st.integers(0, 12), st.sampled_from(["low", "medium", "high"]), st.floats(0.0, 1.0))
def test_a_density_with_priors_and_weights_integrates_to_one(number, confidence, prior):
    columns = Columns(
        Space.parse(
            {
                "fusion.dropout": {
                    "float": [0.0, 1.0],
                    "prior": prior,
                    "prior_confidence": confidence,
                },
                "fusion.depth": {"choice": [1, 2, 3], "prior": 2, "prior_confidence": confidence},
            }
        )
    )
    draw = np.random.default_rng(number)
    points = np.stack([draw.random(number), draw.integers(0, 3, number)], axis=1)
    density = Parzen(points, columns.num_choices, columns.belief, draw.random(number))
    grid = (np.arange(1000) + 0.5) / 1000
    total = sum(
        np.exp(density.log_density(np.stack([grid, np.full(1000, one)], axis=1))).mean()
        for one in range(3)
    )
    assert total == pytest.approx(1, rel=1e-3)
    drawn = density.sample(draw, np.array([np.nan, np.nan]), 50)
    assert ((drawn[:, 0] >= 0) & (drawn[:, 0] <= 1)).all()
    assert set(drawn[:, 1]) <= {0.0, 1.0, 2.0}
