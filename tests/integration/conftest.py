"""What the tests with a real local Ray share: tiny sweeps on a made-up corpus."""

from __future__ import annotations

import io
import math
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from magtkd.metrics import Scores
from magtkd.pipeline import run_chain
from magtkd.store import Store
from tune.cluster import ray_cluster
from tune.config import SweepConfig, SweepOptions, check_sweep
from tune.driver import run_sweep
from tune.ledger import SweepLayout, SweepState, read_events, read_sweep
from tune.search import OPTUNA_STATES, SweepStudy
from tune.tracking.projection import STATUS

STAGE = {"epochs": 1, "hidden_dim": 8}
TINY = {
    "data": {
        "synthetic": {
            "num_dialogues": 20,
            "mean_length": 5,
            "num_emotions": 3,
            "text_dim": 7,
            "audio_dim": 5,
            "video_dim": 3,
        }
    },
    "teacher": STAGE,
    "audio": STAGE,
    "video": STAGE,
    "fusion": STAGE | {"epochs": 2, "num_heads": 2, "learning_rate": 0.01, "model": "concat"},
}
Outcomes = dict[str, Counter[str]]


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for name, value in changes.items():
        old = result.get(name)
        both = isinstance(old, dict) and isinstance(value, dict)
        result[name] = merged(old, value) if both else value
    return result


@pytest.fixture(scope="module")
def ray_running() -> Iterator[None]:
    with ray_cluster():
        yield


@pytest.fixture(scope="session")
def tiny_sweep() -> Callable[..., SweepConfig]:
    """A sweep on the tiny configuration: its name, its space, and sections that differ. The sampler
    chooses all trials, the first one too: sweeps that share a storage would share that."""

    def make(name: str, space: dict[str, Any], **sections: Any) -> SweepConfig:
        base = merged(TINY, {"search": {"start": []}})
        tree = merged(base, {"name": name, "space": space, **sections})
        sweep = SweepConfig.model_validate(tree)
        check_sweep(sweep)
        return sweep

    return make


@pytest.fixture(scope="session")
def run() -> Callable[..., SweepState]:
    """Runs a sweep to its end, and reads its ledger."""

    def run_it(sweep: SweepConfig, storage: Path, **options: Any) -> SweepState:
        returned = run_sweep(
            sweep, SweepOptions(storage=str(storage), **options), Console(file=io.StringIO())
        )
        state = read_sweep(SweepLayout(storage, sweep.name))
        assert state.count() == returned.count()
        return state

    return run_it


@pytest.fixture(scope="session")
def start_command() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts the command line in a process group of its own, in a folder."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: object, folder: Path, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "tune.cli", *map(str, arguments)],
            cwd=folder,
            env=os.environ | {"COLUMNS": "200"} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


@pytest.fixture(scope="session")
def run_command(
    start_command: Callable[..., subprocess.Popen[str]],
) -> Callable[..., tuple[int, str, str]]:
    """Runs the command line to its end: exit code, output, errors."""

    def run(*arguments: object, folder: Path, **environment: str) -> tuple[int, str, str]:
        process = start_command(*arguments, folder=folder, **environment)
        out, err = process.communicate(timeout=240)
        return process.returncode, out, err

    return run


@pytest.fixture(scope="session")
def outcomes() -> Callable[[SweepState], Outcomes]:
    """How often each stage was trained, reused or stopped."""

    def count(state: SweepState) -> Outcomes:
        found: Outcomes = {}
        for trial in state.trials.values():
            for stage, record in trial.stages.items():
                found.setdefault(stage, Counter())[record.outcome] += 1
        return found

    return count


@pytest.fixture(scope="session")
def dev_alone() -> Callable[..., Scores]:
    """Dev scores of a configuration that runs by itself in a store of its own."""

    def scores(config: Any, storage: Path) -> Scores:
        metrics = run_chain(config, Store(storage))["fusion"].metrics
        chosen = next(one for one in metrics["reports"] if one["epoch"] == metrics["epoch"])
        return Scores.of_dev(chosen["metrics"])

    return scores


@pytest.fixture(scope="session")
def check_agreement() -> Callable[[Path, str], SweepState]:
    """Checks that a sweep's ledger, study and MLflow runs agree trial by trial."""

    def check(storage: Path, name: str) -> SweepState:
        layout = SweepLayout(storage, name)
        state = read_sweep(layout)
        assert sorted(state.trials) == list(range(len(state.trials)))
        _check_study(state, SweepStudy(state.sweep, read_events(layout.ledger)).study)
        _check_runs(state, layout.tracking_uri)
        return state

    return check


def _check_study(state: SweepState, study: Any) -> None:
    assert len(study.trials) == len(state.trials)
    for number, frozen in enumerate(study.trials):
        trial = state.trials[number]
        assert frozen.number == number
        assert frozen.state == OPTUNA_STATES[trial.state]
        assert frozen.params.items() <= trial.values.items()
        if trial.state == "completed":
            assert frozen.values == trial.objectives
        if len(state.objectives) == 1:
            metric = state.objectives[0].metric
            reported = {one.epoch: one.metrics[metric] for one in trial.reports}
            # The study gets a trial's reports when the trial ends.
            if trial.has_ended or frozen.intermediate_values:
                assert frozen.intermediate_values == reported


def _check_runs(state: SweepState, uri: str) -> None:
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(state.name)
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], max_results=1000)
    runs = {run.data.tags.get("magtkd.trial"): run for run in found}
    assert len(found) == len(state.trials) + 1 == len(runs)
    parent = runs.pop(None)
    assert parent.info.status == {"finished": "FINISHED", "interrupted": "KILLED"}[state.closed]
    for number, trial in state.trials.items():
        run = runs[str(number)]
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        closed = "KILLED" if trial.state == "running" else STATUS[trial.state]
        assert run.info.status == closed
        assert run.info.start_time == trial.suggested_time
        if trial.has_ended:
            assert run.info.end_time == trial.ended_time
        assert set(run.data.params) == set(trial.values)
        _check_metrics(client, run, trial)


def _check_metrics(client: Any, run: Any, trial: Any) -> None:
    expected: dict[str, list[tuple[int, int, float]]] = {}
    for report in trial.reports:
        for metric, value in report.metrics.items():
            assert value is not None
            expected.setdefault(metric, []).append((report.epoch, report.time, value))
    reported = {name for name in run.data.metrics if name.startswith(("dev/", "train/"))}
    assert reported == set(expected)
    assert not any(name.startswith("test/") for name in run.data.metrics)
    for metric, points in expected.items():
        history = client.get_metric_history(run.info.run_id, metric)
        assert sorted((one.step, one.timestamp, one.value) for one in history) == points
        assert all(math.isfinite(value) for _, _, value in points)
    for stage, record in trial.stages.items():
        assert run.data.tags[f"stage.{stage}.key"] == record.key
        assert run.data.tags[f"stage.{stage}.outcome"] == record.outcome
