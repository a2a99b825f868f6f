"""A sweep and its confirmation, which is killed in the middle and continues."""

from __future__ import annotations

import io
import os
from collections import Counter

import pytest
from rich.console import Console

from tests.integration.test_survival import wait_for
from tune.config import SweepOptions
from tune.driver import ConfirmRequest, confirm_sweep
from tune.ledger import StagesRecorded, SweepLayout, TrialEnded, read_events, read_sweep

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

NUM_TRIALS, NUM_SEEDS = 3, 4
UPSTREAM = ("data", "teacher", "audio", "video")


def ended(layout):
    path = layout.ledger
    events = read_events(path) if path.is_file() else ()
    return sum(isinstance(event, TrialEnded) for event in events)


@pytest.fixture(scope="module")
def folder(ray_running, tmp_path_factory, tiny_sweep, run):
    """A folder with the storage of a sweep of three learning rates, of which one learns nothing."""
    folder = tmp_path_factory.mktemp("work")
    sweep = tiny_sweep(
        "toy",
        {"fusion.learning_rate": {"choice": [0.01, 0.02, 1e-9]}},
        search={"sampler": "grid", "num_trials": NUM_TRIALS},
    )
    run(sweep, folder / "store")
    return folder


def confirm(folder, **request):
    tracking_uri = "" if "vary" in request else None
    options = SweepOptions(storage=str(folder / "store"), tracking_uri=tracking_uri)
    return confirm_sweep("toy", ConfirmRequest(**request), options, Console(file=io.StringIO()))


def test_a_confirmation_that_is_killed_trains_nothing_twice(folder, start_command):
    sweep = SweepLayout(folder / "store", "toy")
    layout = sweep.confirmation(1)
    arguments = "confirm", "toy", "--seeds", NUM_SEEDS, "--storage", "store"
    process = start_command(*arguments, folder=folder)
    wait_for(process, lambda: ended(layout) >= 5)
    process.kill()
    process.communicate()
    assert not read_sweep(layout).is_confirmed
    confirm(folder)
    state, events = read_sweep(layout), list(read_events(layout.ledger))
    assert (state.num_resumed, state.is_confirmed) == (1, True)
    # Each pair of a configuration and a seed once, by the rounds that the ledger has.
    pairs = [(one.values["fusion.learning_rate"], one.suggested.seed) for one in trials_of(state)]
    assert len(set(pairs)) == len(pairs)
    assert {seed for _, seed in pairs} == set(range(1, NUM_SEEDS + 1))
    assert [one.num_seeds for one in state.rounds] == [3, 4]
    # No stage was trained twice, nor one that the sweep had: dev stays what it is.
    trained = Counter(
        (stage, record.key)
        for place in (sweep, layout)
        for event in read_events(place.ledger)
        if isinstance(event, StagesRecorded)
        for stage, record in event.stages.items()
        if record.outcome == "trained"
    )
    assert set(trained.values()) == {1}
    stages = Counter(stage for stage, _ in trained)
    assert stages["data"] == 1
    assert stages["teacher"] == stages["audio"] == stages["video"] == 1 + NUM_SEEDS
    assert stages["fusion"] == NUM_TRIALS + len(pairs)
    check_runs(sweep, state)
    for one in state.rounds[-1].standings:
        values = [
            trial.objectives[0]
            for trial in trials_of(state)
            if state.race.entry_of(trial.suggested).trial == one.trial
        ]
        assert one.mean == pytest.approx(sum(values) / NUM_SEEDS)
    # It is over: the same again starts nothing.
    assert confirm(folder, num_seeds=NUM_SEEDS).chosen == state.chosen
    assert list(read_events(layout.ledger)) == events


@pytest.mark.cluster
def test_fusion_alone_is_repeated_on_what_it_reads(folder):
    state = confirm(folder, vary="fusion", top=2, num_seeds=2, again=True)
    before = read_sweep(SweepLayout(folder / "store", "toy")).trials[0].stages
    assert (state.is_confirmed, len(state.trials)) == (True, 4)
    for trial in trials_of(state):
        assert trial.stages["fusion"].outcome == "trained"
        for stage in ("data", "teacher", "audio", "video"):
            assert trial.stages[stage].outcome == "reused"
            assert trial.stages[stage].key == before[stage].key


def trials_of(state):
    return list(state.trials.values())


def check_runs(sweep, state):
    """The runs of the confirmation are below its own, and that is below the sweep's."""
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=sweep.tracking_uri)
    experiment = client.get_experiment_by_name("toy")
    found = client.search_runs([experiment.experiment_id], max_results=1000)
    runs = {run.info.run_name: run for run in found}
    assert len(runs) == len(found) == 1 + NUM_TRIALS + 1 + len(state.trials)
    own = runs["confirm"]
    assert own.data.tags["mlflow.parentRunId"] == runs["toy"].info.run_id
    assert own.data.tags["magtkd.chosen"] == f"trial-{state.chosen:04d}"
    for trial in trials_of(state):
        repeated = state.race.entry_of(trial.suggested).trial
        run = runs[f"confirm/trial-{repeated:04d}/seed-{trial.suggested.seed}"]
        assert run.data.tags["mlflow.parentRunId"] == own.info.run_id
        assert run.data.tags["magtkd.confirms"] == f"trial-{repeated:04d}"
        assert run.data.params["seed"] == str(trial.suggested.seed)
        assert run.info.status == "FINISHED"
    last = state.rounds[-1]
    for one in last.standings:
        points = client.get_metric_history(own.info.run_id, f"mean/trial-{one.trial:04d}")
        assert (points[-1].step, points[-1].value) == (last.num_seeds, one.mean)
