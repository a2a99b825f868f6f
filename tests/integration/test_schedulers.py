"""Each scheduler and each sampler run a short sweep to its end, and everything agrees on it."""

from __future__ import annotations

import json

import pytest
import ray

from tune.driver.room import TRIAL_BYTES, free_bytes
from tune.ledger import SweepLayout
from tune.schedulers import Asha, SchedulerSection

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.usefixtures("ray_running"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

RATES = {"fusion.learning_rate": {"float": [1e-4, 1e-1], "log": True}}
CASES = {
    "asha": ("tpe", {"grace_period": 1, "reduction_factor": 2}, {"num_trials": 6, "seed": 1}),
    "hyperband": (
        "random",
        {"reduction_factor": 2},
        {"num_trials": 5, "max_concurrent": 5, "seed": 2},
    ),
    "median": ("qmc", {"grace_period": 1, "min_samples": 2}, {"num_trials": 5, "seed": 3}),
    "fifo": ("cost_aware_tpe", {}, {"num_trials": 4, "seed": 4}),
}


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    return tmp_path_factory.mktemp("schedulers")


@pytest.mark.parametrize("kind", CASES)
def test_a_scheduler_leaves_no_trial_running(kind, storage, tiny_sweep, run, check_agreement):
    sampler, scheduler, search = CASES[kind]
    sweep = tiny_sweep(
        kind,
        RATES,
        scheduler={"kind": kind, **scheduler},
        search={"sampler": sampler, "max_concurrent": 5 if kind == "hyperband" else 2, **search},
        fusion={"epochs": 4},
    )
    run(sweep, storage)
    state = check_agreement(storage, kind)
    assert state.closed == "finished"
    assert len(state.trials) == search["num_trials"]
    assert set(state.count()) <= {"completed", "stopped"}
    assert state.count()["completed"] >= 1
    for trial in state.trials.values():
        assert [report.epoch for report in trial.reports] == list(range(1, len(trial.reports) + 1))
        assert trial.state == "stopped" or len(trial.reports) == 4
        assert trial.dev is not None
        assert trial.stages["fusion"].outcome == (
            "trained" if trial.state == "completed" else "stopped"
        )


def events_of(layout):
    """A ledger's events without what differs between any two runs."""
    for event in map(json.loads, layout.ledger.read_text().splitlines()):
        if event["kind"] != "sweep_opened":
            del event["time"]
            stages = event.get("stages", {}).items()
            yield event | {"stages": {stage: record["key"] for stage, record in stages}}


def test_epochs_that_are_reported_at_once_give_the_same_ledger(
    storage, tiny_sweep, run, monkeypatch, tmp_path
):
    """One trial at a time, so that the order is the same; one of them diverges."""
    sweep = tiny_sweep(
        "batches",
        {"fusion.learning_rate": {"choice": [1e-3, 1e-2, 1e-4, 1e38, 1e-1]}},
        scheduler={"kind": "asha", "grace_period": 3, "reduction_factor": 2},
        search={"sampler": "grid", "num_trials": 5, "max_concurrent": 1},
        fusion={"epochs": 20},
    )
    state = run(sweep, storage, tracking_uri="")
    assert state.count()["stopped"] >= 1
    assert state.count()["diverged"] == 1
    monkeypatch.setattr(Asha, "decides_after", SchedulerSection.decides_after)
    run(sweep, tmp_path, tracking_uri="")
    one, other = (list(events_of(SweepLayout(folder, "batches"))) for folder in (storage, tmp_path))
    assert one == other


def test_the_free_memory_is_known():
    assert TRIAL_BYTES < free_bytes() < 1 << 50


@pytest.fixture(scope="module")
def population(storage, tiny_sweep, run):
    space = RATES | {
        "fusion.dropout": {"float": [0.0, 0.6]},
        "fusion.audio_weight": {"choice": [0.01, 0.1, 1.0]},
    }
    sweep = tiny_sweep(
        "population",
        space,
        scheduler={
            "kind": "pbt",
            "perturbation_interval": 1,
            "quantile_fraction": 0.5,
            "resample_probability": 0.5,
        },
        search={"sampler": "random", "num_trials": 3, "max_concurrent": 3},
        fusion={"epochs": 8, "model": "magt"},  # so that no trial ends before another's first
    )
    return run(sweep, storage)


def test_population_based_changes_are_recorded(population, storage, check_agreement):
    state = check_agreement(storage, "population")
    assert state.count() == {"completed": 3}
    changed = [trial for trial in state.trials.values() if trial.changes]
    assert changed, "no trial continued another's session"


def test_a_population_exports_what_gave_its_metrics(population, tmp_path, dev_alone):
    changed = [trial for trial in population.trials.values() if trial.candidate.changes]
    for trial in changed:
        config = trial.candidate.config(population.sweep.base)
        assert config.fusion.changes == trial.candidate.changes
        assert dev_alone(config, tmp_path / str(trial.number)) == trial.dev


def test_trials_that_are_paused_keep_no_worker_from_a_stage(population, storage, tiny_sweep, run):
    """Trials of a bracket wait for each other, and each one's teacher needs the whole machine."""
    num_cpus = int(ray.cluster_resources()["CPU"])
    sweep = tiny_sweep(
        "brackets",
        {"teacher.hidden_dim": {"choice": [9, 10, 11, 8, 12, 13]}},
        scheduler={"kind": "hyperband", "reduction_factor": 2},
        search={"sampler": "grid", "num_trials": 6, "max_concurrent": 6},
        resources={stage: {"cpu": num_cpus} for stage in ("teacher", "audio", "video", "fusion")},
        fusion={"epochs": 4},
    )
    state = run(sweep, storage, tracking_uri="")
    assert state.closed == "finished"
    assert state.count()["running"] == 0
    teachers = {number: trial.stages["teacher"] for number, trial in state.trials.items()}
    # The one that exists already is the first to be paused.
    assert [number for number in teachers if teachers[number].outcome == "reused"] == [3]
