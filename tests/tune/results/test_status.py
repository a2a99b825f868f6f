"""The status of a sweep says what the ledger, the lock and the driver say, and disturbs neither."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tune.tracking.tracker
from magtkd.cli.train import run_app
from magtkd.errors import StorageError
from magtkd.store.locks import take_lock
from tune.cli.commands import app
from tune.config.sweep import SweepConfig
from tune.ledger.file import Ledger, open_ledger, read_sweep
from tune.ledger.layout import sweep_folder
from tune.results.status import driver_of, sweep_status

# MLflow's own: it uses an option of SQLAlchemy that is going away.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")

CONFIG = SweepConfig.model_validate(
    {
        "name": "toy",
        "data": {"synthetic": {"num_dialogues": 11, "mean_length": 3}},
        "fusion": {"epochs": 5},
        "search": {"num_trials": 9},
        "space": {"fusion.dropout": {"float": [0.0, 0.9]}},
    }
).model_dump(mode="json")
BROKEN = "teacher: cannot load 'x'\nin two lines"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The sweep's folder, in the working directory's default storage; MLflow is up to date."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(tune.tracking.tracker, "num_behind", lambda path, uri: 0, raising=False)
    return sweep_folder("magtkd-results", "toy")


def write_sweep(ledger: Ledger) -> None:
    """Nine trials: three run, of which one has reported, two failed alike, one in another way."""
    ledger.append("sweep_opened", name="toy", config=CONFIG, versions={})
    for number in range(8):
        ledger.append("trial_suggested", trial=number, values={"fusion.dropout": number / 10})
    teacher = {"key": "a1", "outcome": "trained", "seconds": 5.0}
    ledger.append("trial_stages", trial=7, stages={"teacher": teacher})
    for epoch, value in enumerate([0.25, 0.5], start=1):
        metrics = {"dev/weighted_f1": value, "dev/loss": 1.0}
        ledger.append("trial_report", trial=7, epoch=epoch, metrics=metrics)
    ledger.append("trial_ended", trial=0, state="completed", epoch=1, objectives=[0.6])
    ledger.append("trial_ended", trial=1, state="failed", message=BROKEN)
    ledger.append("trial_ended", trial=2, state="failed", message="video: [bold]broken[/bold]")
    ledger.append("trial_ended", trial=3, state="failed", message=BROKEN)
    ledger.append("trial_ended", trial=4, state="diverged", message="fusion: diverged: nan")


@pytest.fixture
def killed(folder: Path) -> Path:
    """A sweep whose driver left without a word."""
    with open_ledger(folder) as ledger:
        write_sweep(ledger)
    return folder


@pytest.fixture
def running(folder: Path) -> Iterator[Ledger]:
    """A sweep whose driver is this process."""
    with open_ledger(folder) as ledger:
        write_sweep(ledger)
        yield ledger


def live(folder: Path, **changes: Any) -> None:
    told = {
        "time": time.time_ns() // 1_000_000,
        "process": (folder / "lock").read_text(),
        "trials": {"7": "trains fusion", "5": "waits for teacher 3f2a91c0 (training for 41 s)"},
        "workers": {"training": 1, "holding": 2, "idle": 0},
        "engine": "up",
    }
    (folder / "live.json").write_text(json.dumps(told | changes))


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def run(*arguments: str) -> tuple[int, str, str]:
        code = run_app(app, list(arguments))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


# --- the driver -------------------------------------------------------------------------------


def test_a_driver_is_seen_and_not_disturbed(running: Ledger, folder: Path) -> None:
    before = sorted(folder.iterdir()), (folder / "lock").read_text()
    driver = driver_of(folder)
    assert driver is not None
    assert driver.startswith(f"process {os.getpid()} on ")
    assert (sorted(folder.iterdir()), (folder / "lock").read_text()) == before
    running.append("sweep_closed", reason="finished")
    assert take_lock(folder / "lock") is None


def test_without_a_driver_nothing_is_left_behind(killed: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*")), (killed / "lock").read_text()
    assert driver_of(killed) is None
    assert driver_of(tmp_path / "nowhere") is None
    assert (sorted(tmp_path.rglob("*")), (killed / "lock").read_text()) == before
    with open_ledger(killed, resume=True) as ledger:
        ledger.append("sweep_resumed")


def test_a_driver_that_is_killed_is_gone(folder: Path) -> None:
    program = (
        "import sys, time; from tune.ledger.file import open_ledger; "
        "ledger = open_ledger(sys.argv[1]); print('ready', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(folder)], stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert str(process.pid) in (driver_of(folder) or "")
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert driver_of(folder) is None


# --- what is said -----------------------------------------------------------------------------


def test_a_running_sweep(running: Ledger, folder: Path) -> None:
    live(folder)
    status = sweep_status(folder, "magtkd-results")
    assert (status["state"], status["process"]) == ("running", (folder / "lock").read_text())
    assert status["counts"] == {"running": 3, "completed": 1, "diverged": 1, "failed": 3}
    assert (status["num_trials"], status["num_resumed"], status["resume"]) == (9, 0, None)
    assert (status["engine"], status["workers"]["holding"]) == ("up", 2)
    waiting, unknown, training = status["trials"]
    assert (waiting["trial"], waiting["now"]) == (
        5,
        "waits for teacher 3f2a91c0 (training for 41 s)",
    )
    assert (unknown["trial"], unknown["now"], unknown["epoch"]) == (6, None, None)
    assert training == {
        "trial": 7,
        "values": {"fusion.dropout": 0.7},
        "epoch": 2,
        "num_epochs": 5,
        "metric": "dev/weighted_f1",
        "value": 0.5,
        "stages": {"teacher": "trained"},
        "now": "trains fusion",
    }


def test_failures_with_one_message_are_together(killed: Path) -> None:
    assert sweep_status(killed, "x")["failures"] == [
        {"state": "failed", "message": "teacher: cannot load 'x' in two lines", "trials": [1, 3]},
        {"state": "failed", "message": "video: [bold]broken[/bold]", "trials": [2]},
        {"state": "diverged", "message": "fusion: diverged: nan", "trials": [4]},
    ]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[1]",
        b'{"process": "process 1 on another"}',
        b'{"trials": {"7": 3}, "workers": ["a"], "engine": 1, "time": "now"}',
        b'{"time": NaN, "trials": null}',
    ],
)
def test_a_live_file_that_says_nothing(running: Ledger, folder: Path, content: bytes) -> None:
    (folder / "live.json").write_bytes(content)
    status = sweep_status(folder, "magtkd-results")
    assert status["state"] == "running"
    assert [trial["now"] for trial in status["trials"]] == [None] * 3
    assert (status["engine"], status["workers"], status["age"]) == (None, {}, None)


def test_what_a_dead_driver_said_last_is_not_now(killed: Path) -> None:
    live(killed)
    status = sweep_status(killed, "magtkd-results")
    assert [trial["now"] for trial in status["trials"]] == [None] * 3
    assert (status["state"], status["engine"]) == ("killed", None)
    assert status["resume"] == "magtkd sweep --resume toy --storage magtkd-results"


@pytest.mark.parametrize("reason", ["interrupted", "finished"])
def test_how_a_sweep_was_closed(killed: Path, reason: str) -> None:
    with open_ledger(killed, resume=True) as ledger:
        ledger.append("sweep_resumed")
        closed = ledger.append("sweep_closed", reason=reason)
        assert sweep_status(killed, "x")["state"] == reason
        assert sweep_status(killed, "x")["resume"] is None  # its driver is still there
    status = sweep_status(killed, "s3://key:secret@bucket")
    assert (status["closed"], status["num_resumed"]) == (closed["time"], 1)
    if reason == "finished":
        assert (status["resume"], status["num_trials"]) == (None, 8)
    else:
        assert status["resume"] == "magtkd sweep --resume toy --storage 's3://***@bucket'"


# --- the command ------------------------------------------------------------------------------


def test_status_for_people(
    running: Ledger, folder: Path, call: Callable[..., tuple[int, str, str]]
) -> None:
    live(folder)
    code, out, err = call("status", "toy")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("sweep toy: running since 20")
    assert lines[0].endswith(f"by {(folder / 'lock').read_text()}")
    assert lines[1] == "5/9 trials ended, 3 running, 1 completed, 1 diverged, 3 failed"
    assert lines[2] == "workers: 1 training, 2 holding; engine: up"
    assert [" ".join(line.split()) for line in lines[3:7]] == [
        "trial epoch dev/weighted_f1 now",
        "5 waits for teacher 3f2a91c0 (training for 41 s)",
        "6 no stage is known yet",
        "7 2/5 0.5000 trains fusion",
    ]
    assert lines[7:] == [
        "failed: trials 1, 3: teacher: cannot load 'x' in two lines",
        "failed: trial 2: video: [bold]broken[/bold]",
        "diverged: trial 4: fusion: diverged: nan",
        "MLflow: up to date",
    ]


def test_a_driver_that_hangs_is_told(
    running: Ledger, folder: Path, call: Callable[..., tuple[int, str, str]]
) -> None:
    live(folder, time=time.time_ns() // 1_000_000 - 125_000)
    assert "as of 2:05 ago: the driver has said nothing since" in call("status", "toy")[1]


def test_a_killed_sweep_tells_how_to_go_on(
    killed: Path, call: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "tune.results.status.read_sweep", lambda folder: _with_warnings(folder, "space is short")
    )
    out = call("status", "toy")[1]
    assert out.startswith("sweep toy: killed after 20")
    assert "3 without an end" in out
    assert "warning: space is short\n" in out
    assert out.endswith("go on with: magtkd sweep --resume toy --storage magtkd-results\n")


def _with_warnings(folder: Path, *warnings: str) -> Any:
    state: Any = read_sweep(folder)
    state.warnings = list(warnings)
    return state


@pytest.mark.parametrize(
    ("behind", "line", "told"),
    [
        (lambda path, uri: 0, "MLflow: up to date", {"state": "up to date", "num_events": 0}),
        (
            lambda path, uri: 3,
            "MLflow: lacks 3 events; magtkd sync toy --storage magtkd-results",
            {"state": "behind", "num_events": 3},
        ),
        (
            lambda path, uri: _raise(StorageError("tracking at http://a:secret@h: away")),
            "MLflow: cannot be reached: tracking at http://***@h: away",
            {"state": "unreachable", "reason": "tracking at http://***@h: away"},
        ),
    ],
    ids=["up to date", "behind", "unreachable"],
)
def test_what_mlflow_lacks(
    killed: Path,
    call: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
    behind: Callable[..., int | None],
    line: str,
    told: dict[str, Any],
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://a:secret@h")
    monkeypatch.setattr(tune.tracking.tracker, "num_behind", behind)
    code, out, _ = call("status", "toy")
    assert code == 0
    assert line in out.splitlines()
    code, out, _ = call("status", "toy", "--json")
    assert code == 0
    assert json.loads(out)["mlflow"] == {"address": "http://***@h"} | told
    assert "secret" not in out


def test_a_sweep_that_is_not_recorded(
    folder: Path, call: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tune.tracking.tracker, "num_behind", lambda path, uri: 1)
    with open_ledger(folder) as ledger:
        ledger.append("sweep_opened", name="toy", config=CONFIG, tracked=False)
    assert "MLflow: not recorded; to do so: magtkd sync toy --storage" in call("status", "toy")[1]


def _raise(error: Exception) -> int | None:
    raise error


def test_an_unknown_sweep(killed: Path, call: Callable[..., tuple[int, str, str]]) -> None:
    for command in ("status", "sync"):
        code, out, err = call(command, "toj")
        assert (code, out) == (2, "")
        assert "sweep 'toj': not found" in err
        assert "did you mean 'toy'?" in err


# --- sync -------------------------------------------------------------------------------------


def test_sync_says_what_it_sent(
    killed: Path, call: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Any] = []

    def send(path: Path, uri: str, *, artifacts_of: Any, say: Callable[[str], None]) -> int:
        sent.append((path, uri, artifacts_of(read_sweep(killed).trials[1])["config.yaml"]))
        say("tracking: trial-0000 lacks artifacts")
        return 7 if len(sent) == 1 else 0

    monkeypatch.setattr(tune.tracking.tracker, "sync", send)
    uri = "http://ann:secret@host/x"
    code, out, err = call("sync", "toy", "--tracking-uri", uri)
    assert (code, out) == (0, "MLflow: http://***@host/x: sent 7 events\n")
    assert err == "magtkd: tracking: trial-0000 lacks artifacts\n"
    assert call("sync", "toy")[1] == "MLflow: up to date\n"
    default = f"sqlite:///{killed.parents[1]}/mlflow.db"
    assert [told[:2] for told in sent] == [(killed / "ledger.jsonl", a) for a in (uri, default)]
    assert "dropout: 0.1" in sent[0][2]


def test_sync_to_a_store_that_is_away(
    killed: Path, call: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ann:secret@127.0.0.1:1/x")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    code, out, err = call("sync", "toy")
    assert (code, out) == (2, "")
    assert err.startswith("magtkd: tracking at http://***@127.0.0.1:1/x: Connection refused")
    assert err.count("\n") == 1


@pytest.mark.slow
def test_sync_of_a_sweep_that_was_not_tracked(
    folder: Path, call: Callable[..., tuple[int, str, str]]
) -> None:
    with open_ledger(folder) as ledger:
        ledger.append("sweep_opened", name="toy", config=CONFIG, versions={}, tracked=False)
        ledger.append("trial_suggested", trial=0, values={"fusion.dropout": 0.1})
        ledger.append("trial_report", trial=0, epoch=1, metrics={"dev/weighted_f1": 0.25})
        ledger.append("trial_ended", trial=0, state="stopped")
        ledger.append("sweep_closed", reason="finished")
    database = f"sqlite:///{folder.parents[1]}/mlflow.db"
    assert call("sync", "toy") == (0, f"MLflow: {database}: sent 5 events\n", "")
    assert call("sync", "toy") == (0, "MLflow: up to date\n", "")
    import mlflow

    client = mlflow.MlflowClient(database)
    experiment = client.get_experiment_by_name("toy")
    runs = client.search_runs([experiment.experiment_id])
    assert {run.info.run_name for run in runs} == {"toy", "trial-0000"}
