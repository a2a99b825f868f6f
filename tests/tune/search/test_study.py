import functools
import itertools
import math

import msgspec
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState

from magtkd.errors import SweepError
from magtkd.metrics import Scores
from tune.config import SweepConfig
from tune.ledger import (
    EpochReported,
    StoreListed,
    SweepOpened,
    TestRevealed,
    TrialEnded,
    TrialsLearned,
    TrialStatus,
    TrialSuggested,
    decode_event,
    encode_event,
    fold,
)
from tune.samplers import SAMPLERS, EarlierTrial
from tune.search import OPTUNA_STATES, SweepStudy, frozen_study
from tune.search.joint import distributions
from tune.search.study import section_plan
from tune.space import Candidate

SPACE = {
    "teacher.hidden_dim": {"choice": [32, 64]},
    "audio.dropout": {"float": [0.1, 0.5], "step": 0.1, "tie": ["video.dropout"]},
    "fusion.learning_rate": {"float": [1e-5, 1e-3], "log": True},
    "fusion.depth": {"int": [1, 3]},
    "fusion.model": {"choice": ["magt", "concat"]},
    "fusion.num_heads": {"choice": [2, 4], "when": {"fusion.model": "magt"}},
}
FINITE = {name: entry for name, entry in SPACE.items() if "log" not in entry}
TWO = [{"metric": "dev/weighted_f1", "mode": "max"}, {"metric": "dev/loss", "mode": "min"}]


def sweep_of(sampler, num_trials, budget=None, **sections):
    space = FINITE if sampler == "grid" else SPACE
    search = {"sampler": sampler, "num_trials": num_trials, "seed": 3, "start": []}
    search["budget"] = budget or {}
    return SweepConfig.model_validate({"space": space, "search": search, **sections})


def quality(values):
    return values["audio.dropout"] - abs(math.log10(values.get("fusion.learning_rate", 1)) + 4)


def drive(sweep, study, events, num_asks=math.inf):
    """Ask for trials three at a time, end them out of order in all ways; the events are added."""

    def record(event):
        event = msgspec.structs.replace(event, time=len(events) + 1)
        events.append(decode_event(encode_event(event)))
        study.apply(events[-1])

    asked = []
    while len(asked) < num_asks and (suggestion := study.ask()) is not None:
        asked.append(suggestion)
        first, candidate = suggestion
        record(TrialSuggested(trial=first, values=candidate.values))
        while len(study.running) > 2:
            number = sorted(study.running)[first % 3]
            value = quality(study.running[number].values)
            for epoch in range(1, 4):
                metrics = {"dev/weighted_f1": value * epoch if number % 5 else None}
                record(EpochReported(trial=number, epoch=epoch, metrics=metrics))
            early = "stopped" if len(sweep.objective) == 1 else "failed"
            states = ["completed", "completed", "diverged", early, "completed"]
            state = TrialStatus(states[number % 5])
            values = [value, -2 * value][: len(sweep.objective)]
            record(TrialEnded(trial=number, state=state, objectives=values))
    return asked


@functools.cache
def whole_run(sampler, num_objectives):
    sweep = sweep_of(sampler, 19, objective=TWO[:num_objectives])
    study, events = SweepStudy(sweep), []
    return sweep, study, events, drive(sweep, study, events)


runs = pytest.mark.parametrize(
    ("sampler", "num_objectives"),
    [
        pytest.param(sampler, number, marks=pytest.mark.slow if sampler == "gp" else ())
        for sampler, number in itertools.product(SAMPLERS, (1, 2))
        if number == 1 or sampler not in {"cmaes", "cost_aware_tpe"}
    ],
)


@runs
def test_values_of_a_stepped_range_are_as_written(sampler, num_objectives):
    """Not 0.30000000000000004, so that conditions hold and samplers share stages."""
    _, study, _, asked = whole_run(sampler, num_objectives)
    written = {0.1, 0.2, 0.3, 0.4, 0.5}
    drawn = {candidate.values["audio.dropout"] for _, candidate in asked}
    assert drawn <= written
    assert len(drawn) > 1
    assert {trial.params["audio.dropout"] for trial in study.study.trials} == drawn


@runs
def test_a_study_from_the_ledger_suggests_what_the_old_one_did(sampler, num_objectives):
    sweep, study, events, asked = whole_run(sampler, num_objectives)
    assert len(asked) == 19
    places = [place for place, event in enumerate(events) if isinstance(event, TrialSuggested)]
    for number in (0, 1, 7, 13, 18):
        rebuilt = SweepStudy(sweep, events[: places[number]])
        assert rebuilt.ask() == asked[number]
    rebuilt = SweepStudy(sweep, events)
    assert rebuilt.running == study.running
    assert rebuilt.ask() is None


@runs
def test_the_study_is_a_projection_of_the_ledger(sampler, num_objectives):
    sweep, study, events, _ = whole_run(sampler, num_objectives)
    every = distributions(sweep.search_space)
    state = fold([SweepOpened(name=sweep.name, config=sweep.model_dump(mode="json")), *events])
    assert len(study.study.trials) == len(state.trials)
    for frozen in study.study.trials:
        trial = state.trials[frozen.number]
        own = sweep.search_space.own_values(trial.values)
        assert (frozen.params, set(frozen.distributions)) == (own, set(own))
        assert all(frozen.distributions[name] == every[name] for name in own)
        if not trial.has_ended:
            assert frozen.state == TrialState.RUNNING
            continue
        assert frozen.state == OPTUNA_STATES[trial.state]
        if frozen.state == TrialState.COMPLETE:
            assert frozen.values == trial.objectives
        if num_objectives == 1:
            metric = sweep.objective[0].metric
            reported = {one.epoch: one.metrics[metric] for one in trial.reports}
            finite = {epoch: value for epoch, value in reported.items() if value is not None}
            assert frozen.intermediate_values == finite


@pytest.mark.parametrize("sampler", ["cmaes", "nsga2"])
def test_samplers_with_memory_leave_their_random_start(sampler):
    asked = whole_run(sampler, 1)[-1]
    random = whole_run("random", 1)[-1]
    assert asked[-1][1] != random[-1][1]


def test_the_seed_decides():
    def first(seed):
        search = {"sampler": "tpe", "seed": seed, "start": []}
        return SweepStudy(SweepConfig.model_validate({"space": SPACE, "search": search})).ask()

    assert first(5) == first(5)
    assert first(5) != first(7)


@settings(max_examples=7)
@given(st.integers(1, 60))
def test_a_grid_gives_its_points_in_order_and_ends(num_trials):
    sweep = sweep_of("grid", num_trials)
    study = SweepStudy(sweep)
    points = list(sweep.search_space.points(sweep))
    assert len(points) == 2 * 5 * 3 * 3
    assert drive(sweep, study, []) == [
        (number, Candidate(values=values)) for number, values in enumerate(points[:num_trials])
    ]


def test_a_grid_smaller_than_the_sweep_ends_after_its_points():
    study = SweepStudy(sweep_of("grid", 23, space={"seed": {"choice": [2, 3, 5]}}))
    assert study.max_trials == 3
    asked = [study.ask() for _ in range(4)]
    assert [candidate.values for _, candidate in asked[:3]] == [{"seed": n} for n in (2, 3, 5)]
    assert asked[3] is None


def test_without_a_number_a_grid_ends_after_its_points_and_others_go_on():
    budget = {"hours": 8}
    grid = SweepStudy(sweep_of("grid", None, space={"seed": {"choice": [2, 3]}}, budget=budget))
    assert grid.max_trials == 2
    study = SweepStudy(sweep_of("random", None, budget=budget))
    assert study.max_trials is None
    assert [study.ask()[0] for _ in range(30)] == list(range(30))
    assert study.has_more


def test_conditions_and_ties_hold_in_suggestions():
    for _, candidate in whole_run("tpe", 1)[-1]:
        values = candidate.values
        assert values["audio.dropout"] == values["video.dropout"]
        assert ("fusion.num_heads" in values) == (values["fusion.model"] == "magt")


# --- how a trial ends ----------------------------------------------------------------------


def ended(state, objectives=None, reports=(), **sections):
    study = SweepStudy(sweep_of("random", 5, **sections))
    number, _ = study.ask()
    for epoch, value in reports:
        metrics = {"dev/weighted_f1": value}
        study.apply(EpochReported(trial=number, epoch=epoch, metrics=metrics))
    event = TrialEnded(trial=number, state=TrialStatus(state), objectives=objectives)
    study.apply(event)
    assert not study.running
    return study.study.trials[number]


def test_a_completed_trial_has_the_value_of_its_chosen_epoch():
    trial = ended("completed", [0.7], [(1, 0.3), (2, 0.7), (3, 0.5)])
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 0.7)


def test_a_stopped_trial_is_pruned_with_its_reports():
    trial = ended("stopped", [0.7], [(1, 0.7), (2, 0.5)])
    assert trial.state == TrialState.PRUNED
    assert trial.intermediate_values == {1: 0.7, 2: 0.5}
    assert ended("stopped").state == TrialState.PRUNED


@pytest.mark.parametrize("state", ["diverged", "failed"])
def test_a_trial_that_went_wrong_failed(state):
    trial = ended(state, None, [(1, 0.7)])
    assert (trial.state, trial.value) == (TrialState.FAIL, None)


@pytest.mark.parametrize("objectives", [None, [None], [math.nan], [math.inf]])
def test_a_trial_without_a_finite_value_failed(objectives):
    assert ended("completed", objectives).state == TrialState.FAIL


@pytest.mark.parametrize("value", [None, math.nan, -math.inf])
def test_a_report_that_is_not_finite_is_left_out(value):
    assert ended("stopped", None, [(1, 0.3), (2, value)]).intermediate_values == {1: 0.3}


def test_the_first_report_of_an_epoch_and_the_first_end_count():
    study = SweepStudy(sweep_of("random", 5))
    number, _ = study.ask()
    for value in (0.3, 0.5):
        metrics = {"dev/weighted_f1": value}
        study.apply(EpochReported(trial=number, epoch=1, metrics=metrics))
    for state in ("stopped", "failed"):
        study.apply(TrialEnded(trial=number, state=TrialStatus(state)))
    assert study.study.trials[number].state == TrialState.PRUNED
    assert study.study.trials[number].intermediate_values == {1: 0.3}


def test_several_objectives_are_given_together():
    trial = ended("completed", [0.7, 1.3], [(1, 0.5)], objective=TWO)
    assert trial.values == [0.7, 1.3]


def test_events_of_other_kinds_say_nothing():
    study = SweepStudy(
        sweep_of("random", 5),
        [
            SweepOpened(name="n", config={}),
            TestRevealed(trial=0, test=Scores(0.5, 0.5)),
        ],
    )
    assert study.num_trials == 0


@pytest.mark.parametrize(
    ("trial", "change"),
    [(0, {"fusion.depth": 7}), (0, {"fusion.model": "sdt"}), (1, {}), (0, {"video.dropout": 0.3})],
)
def test_a_ledger_of_another_space_is_refused(trial, change):
    sweep = sweep_of("random", 5)
    values = (
        SweepStudy(sweep).ask()[1].values | {"audio.dropout": 0.2, "video.dropout": 0.2} | change
    )
    with pytest.raises(SweepError, match=rf"trial {trial}: the sweep's space does not have"):
        SweepStudy(sweep, [TrialSuggested(trial=trial, values=values)])


# --- the first trials -------------------------------------------------------------------------


def start_of(sampler, start, num_trials=4):
    search = {"sampler": sampler, "num_trials": num_trials, "start": start}
    space = FINITE if sampler == "grid" else SPACE
    return SweepConfig.model_validate({"space": space, "search": search})


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name != "grid"])
def test_the_first_trials_have_the_values_that_were_given(sampler):
    given = {"fusion.depth": 3, "fusion.model": "concat", "teacher.hidden_dim": 32}
    sweep = start_of(sampler, ["base", given])
    study, events = SweepStudy(sweep), []
    asked = [candidate.values for _, candidate in drive(sweep, study, events)]
    base = {
        "teacher.hidden_dim": 64,
        "audio.dropout": 0.1,
        "video.dropout": 0.1,
        "fusion.learning_rate": 1e-4,
        "fusion.depth": 1,
        "fusion.model": "magt",
        "fusion.num_heads": 8,  # not in the space
    }
    assert asked[0] == base
    without = {name: one for name, one in base.items() if name != "fusion.num_heads"}
    assert asked[1] == without | given
    assert all(sweep.search_space.has(values) for values in asked[1:])
    # Optuna has no place for a value outside the space.
    assert study.study.trials[0].params == {}
    assert study.study.trials[1].params == {
        name: one for name, one in asked[1].items() if name != "video.dropout"
    }
    rebuilt = SweepStudy(sweep, events)
    assert rebuilt.study.trials[0].state == TrialState.FAIL
    assert rebuilt.running == study.running


def test_a_sweep_that_gets_fewer_trials_than_its_start_continues():
    start = [{"fusion.depth": depth, "fusion.num_heads": 8} for depth in (1, 2, 3)]
    sweep = start_of("random", start, num_trials=5)
    study, events = SweepStudy(sweep), []
    drive(sweep, study, events)
    fewer = SweepStudy(start_of("random", start, num_trials=2), events)
    assert fewer.num_trials == 5
    assert fewer.ask() is None


@pytest.mark.parametrize("sampler", ["random", "tpe", "cost_aware_tpe"])
def test_without_a_number_of_trials_a_finite_space_has_an_end(sampler):
    search = {"sampler": sampler, "budget": {"hours": 1}}
    space = {"fusion.depth": {"int": [1, 3]}}
    study = SweepStudy(SweepConfig.model_validate({"space": space, "search": search}))
    assert study.max_trials == 3
    assert SweepStudy(sweep_of(sampler, None, budget={"hours": 1})).max_trials is None


def test_a_grid_has_its_own_points_alone():
    assert SweepStudy(start_of("grid", ["base"])).ask() == SweepStudy(start_of("grid", [])).ask()


def test_what_is_in_the_store_changes_suggestions_and_is_read_from_the_ledger():
    sweep = sweep_of("cost_aware_tpe", 40)
    study, events = SweepStudy(sweep), []
    drive(sweep, study, events, num_asks=15)
    stored = [section_plan({"teacher.hidden_dim": one}).keys["teacher"] for one in (32, 64)]
    events.append(StoreListed(keys={"teacher": stored}, seconds={"teacher": 1000.0}))
    study.apply(events[-1])
    asked = drive(sweep, study, events, num_asks=5)
    places = [place for place, event in enumerate(events) if isinstance(event, TrialSuggested)]
    assert SweepStudy(sweep, events[: places[17]]).ask() == asked[2]


@pytest.mark.parametrize("is_same", [True, False])
def test_earlier_trials_change_suggestions_and_are_read_from_the_ledger(is_same):
    sweep, _, _, without = whole_run("cost_aware_tpe", 1)
    trials = [
        EarlierTrial(candidate.values, {1: quality(candidate.values)}) for _, candidate in without
    ]
    events = [TrialsLearned(source="old", is_same=is_same, trials=trials)]
    study = SweepStudy(sweep, events)
    asked = drive(sweep, study, events)
    assert asked != without
    places = [place for place, event in enumerate(events) if isinstance(event, TrialSuggested)]
    for number in (0, 3, 12):
        assert SweepStudy(sweep, events[: places[number]]).ask() == asked[number]


def test_optuna_stays_quiet(capfd):
    SweepStudy(sweep_of("tpe", 5)).ask()
    assert capfd.readouterr() == ("", "")
    assert optuna.logging.get_verbosity() == optuna.logging.ERROR


# --- a study to look at -----------------------------------------------------------------------


@pytest.mark.parametrize("num_objectives", [1, 2])
def test_a_frozen_study_has_the_same_trials(num_objectives):
    sweep, study, events, _ = whole_run("random", num_objectives)
    opened = SweepOpened(time=1, name="toy", config=sweep.model_dump(mode="json"), sweep_id="i")
    found = frozen_study(fold([opened, *events]))
    assert found.directions == study.study.directions
    for one, other in zip(found.trials, study.study.trials, strict=True):
        for name in ("number", "state", "params", "distributions"):
            assert getattr(one, name) == getattr(other, name)
        if one.state == TrialState.COMPLETE:  # Optuna gives a pruned one its last report, too
            assert one.values == other.values
        if one.state.is_finished():
            assert one.intermediate_values == other.intermediate_values


def test_a_trial_outside_the_space_has_failed_in_a_frozen_study():
    sweep = sweep_of("random", 2)
    config = sweep.model_dump(mode="json")
    values = {"teacher.hidden_dim": 48, "fusion.depth": 1}
    ended = TrialEnded(time=3, trial=0, state=TrialStatus.COMPLETED, objectives=[0.5])
    events = [TrialSuggested(time=2, trial=0, values=values), ended]
    (trial,) = frozen_study(fold([SweepOpened(time=1, name="toy", config=config), *events])).trials
    assert (trial.state, trial.params) == (TrialState.FAIL, {})
