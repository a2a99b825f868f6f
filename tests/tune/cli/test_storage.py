"""`magtkd list`, `stop`, `rm` and `gc`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pyarrow as pa
import pytest

from magtkd.metrics import Scores
from magtkd.pipeline import Outcome, StageRecord
from magtkd.store import Artifact, Store, is_locked
from tune.ledger import (
    StagesRecorded,
    SweepClosed,
    SweepEnd,
    SweepLayout,
    SweepOpened,
    TrialEnded,
    TrialStatus,
    TrialSuggested,
    open_ledger,
    read_sweep,
    sessions_folder,
    sqlite_uri,
)
from tune.tracking.store import find_experiment

Call = Callable[..., tuple[int, str, str]]
DRIVER = """
import pathlib, signal, sys
from magtkd.store import take_lock
ended = []
signal.signal(signal.SIGUSR1, lambda *_: ended.append(1))
lock = take_lock(pathlib.Path(sys.argv[1]))
print("ready", flush=True)
while not ended:
    signal.pause()
print("saved", flush=True)
"""


@pytest.fixture(autouse=True)
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path / "magtkd-results"


def write_sweep(storage: Path, name: str, *keys: str, score: float | None = 0.6) -> SweepLayout:
    """A finished sweep with a trial for each key of a teacher."""
    layout = SweepLayout(storage, name)
    with open_ledger(layout) as ledger:
        ledger.append(SweepOpened(name=name, config={"name": name, "space": {}}))
        for number, key in enumerate(keys):
            ledger.append(TrialSuggested(trial=number, values={"fusion.depth": number + 1}))
            stages = {"teacher": StageRecord(key, Outcome.TRAINED, 2.0)}
            ledger.append(StagesRecorded(trial=number, stages=stages))
            ended: dict[str, Any] = {"state": TrialStatus.FAILED}
            if score is not None:
                ended = {
                    "state": TrialStatus.COMPLETED,
                    "dev": Scores(0.7, score),
                    "objectives": [score],
                    "epoch": 1,
                }
            ledger.append(TrialEnded(trial=number, **ended))
        ledger.append(SweepClosed(reason=SweepEnd.FINISHED))
    sessions = storage / sessions_folder(read_sweep(layout).sweep_id, 0)
    sessions.mkdir(parents=True)
    (sessions / "checkpoint").write_bytes(b"x")
    return layout


def write_teacher(storage: Path, key: str) -> None:
    table = pa.table({"label": ["joy"]})
    Store(storage).write(Artifact("teacher", key, table, {"seconds": 1.0}, {}, b"weights"))


# --- list -------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["list", "status"])
def test_all_sweeps_with_the_best_of_each(storage: Path, call: Call, command: str) -> None:
    write_sweep(storage, "one", "a" * 32, "b" * 32)
    write_sweep(storage, "none", "a" * 32, score=None)
    damaged = write_sweep(storage, "damaged")
    damaged.ledger.write_bytes(b"no ledger\n" + damaged.ledger.read_bytes())
    code, out, _ = call(command)
    assert code == 0
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert "finished" in lines["one"]
    assert " 2 60.00 dev weighted F1 " in " ".join(lines["one"].split())
    assert "damaged: " in out
    code, out, _ = call(command, "--json")
    trees = {tree["sweep"]: tree for tree in json.loads(out)}
    assert trees["one"] | {"opened": 0, "last_event": 0} == {
        "sweep": "one",
        "state": "finished",
        "trials": 2,
        "ended": 2,
        "metric": "dev/weighted_f1",
        "best": 0.6,
        "opened": 0,
        "last_event": 0,
        "process": None,
        "why": None,
    }
    assert trees["none"]["best"] is None
    assert trees["damaged"]["state"] == "damaged"


def test_a_storage_that_is_not_there(call: Call) -> None:
    for command in (["list"], ["gc"]):
        code, _, error = call(*command, "--storage", "nowhere")
        assert code == 2
        assert "nowhere: there is no such folder; give the sweeps' --storage" in error


# --- stop -------------------------------------------------------------------------------------


def test_a_driver_on_this_machine_is_asked_to_end(storage: Path, call: Call) -> None:
    layout = write_sweep(storage, "one", "a" * 32)
    command = [sys.executable, "-c", DRIVER, str(layout.lock)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        assert driver.stdout.readline() == "ready\n"
        code, _, error = call("rm", "one", "--yes")
        assert code == 2
        assert f"process {driver.pid} on " in error
        code, out, _ = call("stop", "one")
        assert code == 0
        assert out.startswith(f"process {driver.pid} on ")
        assert driver.stdout.readline() == "saved\n"
    assert not is_locked(layout.lock)
    assert driver.returncode == 0
    code, _, error = call("stop", "one")
    assert code == 2
    assert "sweep 'one': no driver runs it" in error


def test_a_driver_on_another_machine_is_left_alone(
    storage: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_sweep(storage, "one")
    driver = f"process {os.getpid()} on elsewhere"
    monkeypatch.setattr("tune.driver.housekeeping.driver_of", lambda layout: driver)
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("was sent a signal"))
    code, _, error = call("stop", "one")
    assert code == 2
    assert f"{driver} runs it; call this there, or magtkd slurm --stop one" in error


# --- rm ---------------------------------------------------------------------------------------


def test_a_sweep_is_removed_with_its_sessions_and_others_stay(storage: Path, call: Call) -> None:
    one, other = write_sweep(storage, "one", "a" * 32), write_sweep(storage, "other", "a" * 32)
    write_teacher(storage, "a" * 32)
    sweep_id = read_sweep(one).sweep_id
    code, _, error = call("rm", "one")
    assert code == 2
    assert "nobody can answer here; add --yes" in error
    assert one.ledger.exists()
    code, out, _ = call("rm", "one", "--yes")
    assert code == 0
    assert out.startswith("sweep 'one': removed; ")
    assert not one.folder.exists()
    assert not (storage / sessions_folder(sweep_id)).exists()
    assert len(read_sweep(other).trials) == 1
    assert (storage / sessions_folder(read_sweep(other).sweep_id)).exists()
    assert Store(storage).exists("teacher", "a" * 32)
    code, _, error = call("rm", "one", "--yes")
    assert code == 2
    assert "sweep 'one': not found in" in error


@pytest.mark.parametrize("runs", [True, False])
def test_runs_in_mlflow_go_on_request(storage: Path, call: Call, runs: bool) -> None:
    layout = write_sweep(storage, "one", "a" * 32)
    sweep_id = read_sweep(layout).sweep_id
    assert call("sync", "one")[0] == 0
    assert call("rm", "one", "--yes", *(["--runs"] if runs else []))[0] == 0
    client = mlflow.MlflowClient(sqlite_uri(storage / "mlflow.db"))
    found = find_experiment(client, sweep_id)
    assert found.lifecycle_stage == ("deleted" if runs else "active")
    assert layout.mlflow_artifacts.exists() != runs
    assert not layout.ledger.exists()
    write_sweep(storage, "one")  # the name is free again


# --- gc ---------------------------------------------------------------------------------------


def test_what_no_ledger_names_is_shown_and_removed_on_request(storage: Path, call: Call) -> None:
    used, unused, young = ("a" * 32, "b" * 32, "c" * 32)
    write_sweep(storage, "one", used)
    for key in (used, unused, young):
        write_teacher(storage, key)
    old = time.time() - 2 * 86400
    for key in (used, unused):
        for path in (storage / "artifacts" / "teacher" / key).iterdir():
            os.utime(path, (old, old))
        os.utime(storage / "artifacts" / "teacher" / key, (old, old))
    code, out, _ = call("gc")
    assert code == 0
    assert out.splitlines()[1].split() == ["teacher", "1", "0.0"]
    assert Store(storage).exists("teacher", unused)
    assert call("gc", "--delete")[0] == 2
    assert call("gc", "--delete", "--yes")[1].endswith("removed\n")
    kept = [key for key in (used, unused, young) if Store(storage).exists("teacher", key)]
    assert kept == [used, young]
    assert call("gc", "--older-than", "0m")[1].splitlines()[-1].split()[:2] == ["all", "1"]


def test_nothing_is_unused_where_a_ledger_cannot_be_read(storage: Path, call: Call) -> None:
    layout = write_sweep(storage, "one", "a" * 32)
    write_teacher(storage, "b" * 32)
    layout.ledger.write_bytes(b"no ledger\n" + layout.ledger.read_bytes())
    code, _, error = call("gc", "--older-than", "0m", "--delete", "--yes")
    assert code == 2
    assert "until then it is not known which artifacts are unused" in error
    assert Store(storage).exists("teacher", "b" * 32)


@pytest.mark.parametrize("age", ["", "3", "d", "-1d", "1w", "nan"])
def test_an_age_that_is_none(storage: Path, call: Call, age: str) -> None:
    write_sweep(storage, "one")
    code, _, error = call("gc", "--older-than", age)
    assert code == 2
    assert "write a number and m, h or d, such as 30d" in error
