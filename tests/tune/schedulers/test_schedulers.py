import math
import random
import subprocess
import sys
from types import SimpleNamespace

import pytest
import ray.tune.schedulers as ray_schedulers
from hypothesis import given
from hypothesis import strategies as st

from magtkd.errors import SweepError
from tune.config import SweepConfig, check_sweep
from tune.engine import ends_batch
from tune.ledger import EpochReported, TrialEnded, TrialStatus, TrialSuggested
from tune.schedulers import SCHEDULERS
from tune.search import replay

CONTINUE, STOP = ray_schedulers.TrialScheduler.CONTINUE, ray_schedulers.TrialScheduler.STOP
METRIC = "dev/weighted_f1"
SPACE = {
    "fusion.learning_rate": {"float": [1e-5, 1e-3], "log": True},
    "fusion.dropout": {"float": [0.1, 0.5], "step": 0.1},
    "fusion.audio_weight": {"float": [0.0, 1.0]},
    "fusion.detach_anchor": {"choice": [True, False]},
}
VALUES = {
    "fusion.learning_rate": 1e-4,
    "fusion.dropout": 0.1 + 2 * 0.1,  # as Optuna computes it, not quite 0.3
    "fusion.audio_weight": 0.5,
    "fusion.detach_anchor": True,
}
KINDS = [kind for kind in SCHEDULERS if kind != "fifo"]  # which looks at no metric


def scheduler_of(kind, **sections):
    sweep = SweepConfig.model_validate(
        {
            "space": SPACE,
            "scheduler": {"kind": kind},
            "search": {"num_trials": 7, "max_concurrent": 7},
            "fusion": {"epochs": 9},
            **sections,
        }
    )
    check_sweep(sweep)
    return sweep.scheduler.build(sweep.problem)


class Trial(SimpleNamespace):
    """As much of Ray's trial as schedulers look at."""

    def __init__(self, number):
        checkpoints = SimpleNamespace(checkpoint_config=SimpleNamespace(num_to_keep=None))
        super().__init__(
            trial_id=f"trial{number}",
            experiment_tag="",
            status="RUNNING",
            config={**VALUES, "trial": number},
            run_metadata=SimpleNamespace(checkpoint_manager=checkpoints),
        )

    __hash__ = object.__hash__
    __eq__ = object.__eq__


def controller_of(*trials):
    return SimpleNamespace(
        search_alg=object(), get_trials=lambda: list(trials), get_live_trials=lambda: list(trials)
    )


def started(scheduler, num_trials):
    trials = [Trial(number) for number in range(num_trials)]
    controller = controller_of(*trials)
    for trial in trials:
        scheduler.on_trial_add(controller, trial)
    return controller, trials


def result(epoch, value):
    return {"epoch": epoch, METRIC: value}


def test_fifo_is_rays():
    assert type(scheduler_of("fifo")) is ray_schedulers.FIFOScheduler


@pytest.mark.parametrize("kind", KINDS)
def test_metric_and_mode_are_the_objectives(kind):
    scheduler = scheduler_of(kind, objective={"metric": "dev/loss", "mode": "min"})
    assert scheduler.metric == "dev/loss"
    assert not scheduler.set_search_properties("dev/loss", "min")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [math.nan, math.inf, None])
def test_a_metric_that_is_not_finite_ends_its_trial(kind, value):
    scheduler = scheduler_of(kind)
    controller, (trial, _) = started(scheduler, 2)
    assert scheduler.on_trial_result(controller, trial, result(1, value)) == STOP


@pytest.mark.parametrize("kind", KINDS)
def test_a_last_result_without_metrics_is_taken(kind):
    scheduler = scheduler_of(kind)
    controller, (trial, other) = started(scheduler, 2)
    scheduler.on_trial_result(controller, other, result(1, 0.5))
    scheduler.on_trial_complete(controller, trial, {"epoch": 1, "state": "diverged"})
    assert scheduler.on_trial_result(controller, other, result(2, 0.5)) == CONTINUE


def test_asha_stops_the_worse_at_a_rung():
    scheduler = scheduler_of("asha", scheduler={"kind": "asha", "grace_period": 2})
    controller, (good, bad) = started(scheduler, 2)
    assert scheduler.on_trial_result(controller, good, result(2, 0.7)) == CONTINUE
    assert scheduler.on_trial_result(controller, bad, result(1, 0.1)) == CONTINUE
    assert scheduler.on_trial_result(controller, bad, result(2, 0.1)) == STOP


def test_asha_runs_as_long_as_the_space_allows():
    space = SPACE | {"fusion.epochs": {"int": [3, 31]}}
    scheduler = scheduler_of("asha", space=space)
    controller, (trial,) = started(scheduler, 1)
    assert scheduler.on_trial_result(controller, trial, result(30, 0.5)) == CONTINUE
    assert scheduler.on_trial_result(controller, trial, result(31, 0.5)) == STOP


def test_median_stops_the_worse_and_never_pauses():
    scheduler = scheduler_of("median", scheduler={"kind": "median", "min_samples": 2})
    controller, trials = started(scheduler, 3)
    trials[2].status = "PENDING"
    for trial in trials[:2]:
        assert scheduler.on_trial_result(controller, trial, result(1, 0.7)) == CONTINUE
    assert scheduler.on_trial_result(controller, trials[2], result(1, 0.1)) == STOP


def test_pbt_takes_a_searcher():
    scheduler = scheduler_of("pbt")
    controller, trials = started(scheduler, 2)
    assert scheduler.on_trial_result(controller, trials[0], result(1, 0.5)) == CONTINUE


@pytest.mark.parametrize("probability", [0.0, 0.5, 1.0])
def test_pbt_changes_values_within_their_ranges_and_keeps_the_number(probability):
    settings = {"kind": "pbt", "resample_probability": probability}
    scheduler = scheduler_of("pbt", scheduler=settings)
    space = SweepConfig.model_validate({"space": SPACE}).search_space
    trial, source = Trial(3), Trial(5)
    seen = set()
    for _ in range(53):
        config, operations = scheduler._get_new_config(trial, source)
        assert config.pop("trial") == 3
        assert set(operations) == set(config) == set(SPACE)
        for name, entry in space.entries:
            assert entry.contains(config[name])
        seen.add(config["fusion.learning_rate"])
        source.config = config
    assert len(seen) > 1
    assert trial.config == {**VALUES, "trial": 3}


def test_pbt_changes_follow_from_the_seed():
    def first(seed):
        random.seed(seed + 1)
        search = {"num_trials": 7, "max_concurrent": 7, "seed": seed}
        return scheduler_of("pbt", search=search)._get_new_config(Trial(0), Trial(1))

    assert first(3) == first(3)
    assert first(3) != first(5)


# --- after a driver was killed ----------------------------------------------------------------


def play(scheduler, order, curves, events, *, until=None):
    """What a driver does: reports in some order, each asked of the scheduler, then recorded; which
    trials were stopped at which epoch."""
    stopped, trials = {}, {}
    done = dict.fromkeys(range(len(curves)), 0)
    for event in events:
        if isinstance(event, EpochReported):
            done[event.trial] = event.epoch
        if isinstance(event, TrialEnded):
            done[event.trial] = math.inf
    for number in order[:until]:
        if done[number] == math.inf or done[number] >= len(curves[number]):
            continue
        if number not in trials:
            trials[number] = Trial(number)
            scheduler.on_trial_add(None, trials[number])
            suggested = [one.trial for one in events if isinstance(one, TrialSuggested)]
            if number not in suggested:
                events.append(TrialSuggested(trial=number, values={}))
        done[number] += 1
        epoch, value = done[number], curves[number][done[number] - 1]
        is_last = epoch == len(curves[number])
        if is_last:
            scheduler.on_trial_complete(None, trials[number], result(epoch, value))
            decision = STOP
        else:
            decision = scheduler.on_trial_result(None, trials[number], result(epoch, value))
        metrics = {METRIC: value if math.isfinite(value) else None}
        events.append(EpochReported(trial=number, epoch=epoch, metrics=metrics))
        if decision == STOP:
            if not is_last:
                scheduler.on_trial_complete(None, trials[number], result(epoch, value))
                stopped[number] = epoch
            done[number] = math.inf
            events.append(TrialEnded(trial=number, state=TrialStatus.STOPPED))
    return stopped


@pytest.mark.parametrize("kind", ["asha", "median"])
@given(
    curves=st.lists(
        st.lists(st.floats(0, 1) | st.just(math.nan), min_size=9, max_size=9),
        min_size=7,
        max_size=7,
    ),
    draws=st.lists(st.integers(0, 6), min_size=63, max_size=63),
    cut=st.integers(0, 63),
)
def test_a_new_scheduler_that_is_given_the_ledger_decides_as_the_old_one(kind, curves, draws, cut):
    section = {"kind": kind, "grace_period": 1}
    section |= {"min_samples": 2} if kind == "median" else {"reduction_factor": 3}
    order = [*draws, *list(range(7)) * 9]
    whole = play(scheduler_of(kind, scheduler=section), order, curves, [])

    events = []
    before = play(scheduler_of(kind, scheduler=section), order, curves, events, until=cut)
    again = scheduler_of(kind, scheduler=section)
    assert replay(again, events) == []
    after = play(again, order[cut:], curves, events)
    assert before | after == whole


@pytest.mark.parametrize("kind", ["asha", "median"])
@given(
    curves=st.lists(
        st.lists(st.floats(0, 1) | st.just(math.nan), min_size=23, max_size=23),
        min_size=5,
        max_size=5,
    ),
    draws=st.lists(st.integers(0, 4), min_size=30, max_size=30),
    grace_period=st.integers(1, 23),
    factor=st.floats(1.01, 5),
    limit=st.integers(1, 9),
)
def test_it_stops_a_trial_only_at_the_end_of_a_batch(
    kind, curves, draws, grace_period, factor, limit
):
    """Reports that a trial hands over at once are decided on as those that come singly."""
    section = {"kind": kind, "grace_period": grace_period}
    section |= {"min_samples": 1} if kind == "median" else {"reduction_factor": factor}
    sweep = SweepConfig.model_validate(
        {"space": SPACE, "scheduler": section, "fusion": {"epochs": 23}}
    )
    stops = sweep.scheduler.decides_after(sweep.problem)
    done, order, ends = [0] * 5, [], set()
    for number in [*draws, *list(range(5)) * 23]:
        for _ in range(limit):
            if done[number] == 23:
                break
            order.append(number)
            done[number] += 1
            if ends_batch(done[number], {METRIC: curves[number][done[number] - 1]}, stops):
                break
        ends.add((number, done[number]))
    scheduler = scheduler_of(kind, scheduler=section, fusion={"epochs": 23})
    stopped = play(scheduler, order, curves, [])
    assert stopped.items() <= ends


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_where_it_decides(kind):
    expected = {"fifo": [], "asha": [1, 3, 9, 10], "median": list(range(1, 11))}
    sweep = SweepConfig.model_validate({"scheduler": {"kind": kind}, "fusion": {"epochs": 10}})
    stops = sweep.scheduler.decides_after(sweep.problem)
    assert list(stops) == expected.get(kind, list(range(1, 11)))


@pytest.mark.parametrize("kind", ["asha", "median"])
def test_a_trial_whose_end_was_not_recorded_is_found(kind):
    section = {"kind": kind, "grace_period": 1}
    section |= {"min_samples": 2} if kind == "median" else {}
    events = []
    for number, value in enumerate([0.9, 0.8, 0.7, 0.1]):
        report = EpochReported(trial=number, epoch=1, metrics={METRIC: value})
        events += [TrialSuggested(trial=number, values={}), report]
    assert 3 in replay(scheduler_of(kind, scheduler=section), events)
    ended = [*events, *(TrialEnded(trial=number, state=TrialStatus.STOPPED) for number in range(4))]
    assert replay(scheduler_of(kind, scheduler=section), ended) == []


@pytest.mark.parametrize("kind", ["fifo", "hyperband", "pbt"])
def test_other_schedulers_start_again(kind):
    space = {"fusion.learning_rate": SPACE["fusion.learning_rate"]}
    assert replay(scheduler_of(kind, space=space), [TrialSuggested(trial=0, values={})]) == []


@pytest.mark.parametrize("kind", ["asha", "median"])
def test_an_epoch_that_is_reported_again_counts_once(kind):
    section = {"kind": kind, "grace_period": 1}
    scheduler = scheduler_of(kind, scheduler=section)
    controller, trials = started(scheduler, 2)
    for epoch in (1, 2):
        assert scheduler.on_trial_result(controller, trials[0], result(epoch, 0.5)) == CONTINUE
    before = scheduler.debug_string()
    for epoch in (1, 2):  # its process died, and a new one reports again
        assert scheduler.on_trial_result(controller, trials[0], result(epoch, 0.9)) == CONTINUE
    assert scheduler.debug_string() == before


# --- what every scheduler holds to ------------------------------------------------------------


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_it_is_found_by_its_kind_and_survives_its_round_trip(kind):
    sweep = SweepConfig.model_validate({"scheduler": {"kind": kind}})
    assert sweep.scheduler == SCHEDULERS[kind]()
    assert SweepConfig.model_validate(sweep.model_dump(mode="json")).scheduler == sweep.scheduler


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_it_lets_a_good_first_trial_run(kind):
    scheduler = scheduler_of(kind)
    controller, (trial, _) = started(scheduler, 2)
    assert scheduler.on_trial_result(controller, trial, result(1, 0.9)) == CONTINUE


@pytest.mark.parametrize("kind", KINDS)
def test_it_refuses_several_objectives(kind):
    both = [{"metric": "dev/loss", "mode": "min"}, {"metric": "dev/accuracy"}]
    with pytest.raises(SweepError, match=f"scheduler.kind: {kind} stops trials by one objective"):
        scheduler_of(kind, objective=both)


def test_the_schedulers_are_light_until_one_is_built():
    code = "import sys, tune.schedulers; sys.exit('optuna' in sys.modules or 'ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
