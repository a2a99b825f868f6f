"""The status of a sweep follows from its ledger, lock and live file, and disturbs none of them."""

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

import tune.tracking
from magtkd.errors import StorageLostError
from magtkd.pipeline import StageRecord
from magtkd.store import take_lock
from tune.config import SweepConfig
from tune.ledger import (
    EpochReported,
    Ledger,
    StagesRecorded,
    SweepClosed,
    SweepEnd,
    SweepLayout,
    SweepOpened,
    SweepResumed,
    TrialEnded,
    TrialStatus,
    TrialSuggested,
    open_ledger,
    read_sweep,
)
from tune.results.status import FailureGroup, RunningTrial, driver_of, sweep_status

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
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SweepLayout:
    """A sweep's directory in the working directory's default storage; MLflow is up to date."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(tune.tracking, "num_behind", lambda layout, uri: 0)
    return SweepLayout.of("magtkd-results", "toy")


def write_sweep(ledger: Ledger) -> None:
    """Nine trials: three run, of which one has reported, two failed alike, one in another way."""
    ledger.append(SweepOpened(name="toy", config=CONFIG, versions={}))
    for number in range(8):
        ledger.append(TrialSuggested(trial=number, values={"fusion.dropout": number / 10}))
    teacher = StageRecord("a1", "trained", 5.0)
    ledger.append(StagesRecorded(trial=7, stages={"teacher": teacher}))
    for epoch, value in enumerate([0.25, 0.5], start=1):
        metrics = {"dev/weighted_f1": value, "dev/loss": 1.0}
        ledger.append(EpochReported(trial=7, epoch=epoch, metrics=metrics))
    ledger.append(TrialEnded(trial=0, state=TrialStatus.COMPLETED, epoch=1, objectives=[0.6]))
    ledger.append(TrialEnded(trial=1, state=TrialStatus.FAILED, message=BROKEN))
    ledger.append(
        TrialEnded(trial=2, state=TrialStatus.FAILED, message="video: [bold]broken[/bold]")
    )
    ledger.append(TrialEnded(trial=3, state=TrialStatus.FAILED, message=BROKEN))
    ledger.append(TrialEnded(trial=4, state=TrialStatus.DIVERGED, message="fusion: diverged: nan"))


@pytest.fixture
def killed(layout: SweepLayout) -> SweepLayout:
    """A sweep whose driver was killed."""
    with open_ledger(layout) as ledger:
        write_sweep(ledger)
    return layout


@pytest.fixture
def running(layout: SweepLayout) -> Iterator[Ledger]:
    """A sweep whose driver is this process."""
    with open_ledger(layout) as ledger:
        write_sweep(ledger)
        yield ledger


def live(layout: SweepLayout, **changes: Any) -> None:
    content = {
        "time": time.time_ns() // 1_000_000,
        "process": layout.lock.read_text(),
        "trials": {"7": "trains fusion", "5": "waits for teacher 3f2a91c0 (training for 41 s)"},
        "workers": {"training": 1, "holding": 2, "idle": 0},
        "engine": "up",
    }
    layout.live_file.write_text(json.dumps(content | changes))


# --- the driver -------------------------------------------------------------------------------


def test_a_driver_is_seen_and_not_disturbed(running: Ledger, layout: SweepLayout) -> None:
    before = sorted(layout.folder.iterdir()), layout.lock.read_text()
    driver = driver_of(layout)
    assert driver is not None
    assert driver.startswith(f"process {os.getpid()} on ")
    assert (sorted(layout.folder.iterdir()), layout.lock.read_text()) == before
    running.append(SweepClosed(reason=SweepEnd.FINISHED))
    assert take_lock(layout.lock) is None


def test_without_a_driver_nothing_is_left_behind(killed: SweepLayout, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*")), killed.lock.read_text()
    assert driver_of(killed) is None
    assert driver_of(SweepLayout(tmp_path, "nowhere")) is None
    assert (sorted(tmp_path.rglob("*")), killed.lock.read_text()) == before
    with open_ledger(killed, resume=True) as ledger:
        ledger.append(SweepResumed())


def test_a_driver_that_is_killed_is_gone(layout: SweepLayout) -> None:
    program = (
        "import sys, time; from tune.ledger import SweepLayout, open_ledger; "
        "ledger = open_ledger(SweepLayout.of(sys.argv[1], 'toy')); "
        "print('ready', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(layout.root)], stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert str(process.pid) in (driver_of(layout) or "")
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert driver_of(layout) is None


# --- what is shown -----------------------------------------------------------------------------


def test_a_running_sweep(running: Ledger, layout: SweepLayout) -> None:
    live(layout)
    status = sweep_status(layout, "magtkd-results")
    assert (status.state, status.process) == ("running", layout.lock.read_text())
    assert status.counts == {"running": 3, "completed": 1, "diverged": 1, "failed": 3}
    assert (status.num_trials, status.num_resumed, status.resume) == (9, 0, None)
    assert (status.engine, status.workers["holding"]) == ("up", 2)
    waiting, unknown, training = status.trials
    assert (waiting.trial, waiting.now) == (
        5,
        "waits for teacher 3f2a91c0 (training for 41 s)",
    )
    assert (unknown.trial, unknown.now, unknown.epoch) == (6, None, None)
    assert training == RunningTrial(
        trial=7,
        values={"fusion.dropout": 0.7},
        epoch=2,
        num_epochs=5,
        metric="dev/weighted_f1",
        value=0.5,
        stages={"teacher": "trained"},
        now="trains fusion",
        last_report=training.last_report,
    )


def test_failures_with_one_message_are_together(killed: SweepLayout) -> None:
    failed, diverged = TrialStatus.FAILED, TrialStatus.DIVERGED
    cannot_load = "teacher: cannot load 'x' in two lines"
    assert sweep_status(killed, "x").failures == [
        FailureGroup(state=failed, message=cannot_load, trials=[1, 3]),
        FailureGroup(state=failed, message="video: [bold]broken[/bold]", trials=[2]),
        FailureGroup(state=diverged, message="fusion: diverged: nan", trials=[4]),
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
def test_a_live_file_that_cannot_be_read(
    running: Ledger, layout: SweepLayout, content: bytes
) -> None:
    layout.live_file.write_bytes(content)
    status = sweep_status(layout, "magtkd-results")
    assert status.state == "running"
    assert [trial.now for trial in status.trials] == [None] * 3
    assert (status.engine, status.workers, status.age) == (None, {}, None)


def test_what_a_dead_driver_wrote_last_is_not_now(killed: SweepLayout) -> None:
    live(killed)
    status = sweep_status(killed, "magtkd-results")
    assert [trial.now for trial in status.trials] == [None] * 3
    assert (status.state, status.engine) == ("killed", None)
    assert status.resume == "magtkd sweep --resume toy --storage magtkd-results"


@pytest.mark.parametrize("reason", ["interrupted", "finished"])
def test_how_a_sweep_was_closed(killed: SweepLayout, reason: str) -> None:
    with open_ledger(killed, resume=True) as ledger:
        ledger.append(SweepResumed())
        closed = ledger.append(SweepClosed(reason=SweepEnd(reason)))
        assert sweep_status(killed, "x").state == reason
        assert sweep_status(killed, "x").resume is None  # its driver is still there
    status = sweep_status(killed, "s3://key:secret@bucket")
    assert (status.closed, status.num_resumed) == (closed.time, 1)
    if reason == "finished":
        assert (status.resume, status.num_trials) == (None, 8)
    else:
        assert status.resume == "magtkd sweep --resume toy --storage 's3://***@bucket'"


def test_what_a_limit_cut_is_unfinished(
    killed: SweepLayout, call: Callable[..., tuple[int, str, str]]
) -> None:
    why = "search.budget.hours: 8 h are over"
    with open_ledger(killed, resume=True) as ledger:
        ledger.append(SweepResumed())
        ledger.append(SweepClosed(reason=SweepEnd.FINISHED, why=why))
    status = sweep_status(killed, "x")
    assert (status.state, status.why, status.to_json()["why"]) == ("finished", why, why)
    _, out, _ = call("status", "toy")
    lines = out.splitlines()
    assert lines[1] == "5/8 trials ended, 3 unfinished, 1 completed, 1 diverged, 3 failed"
    assert lines[2] == f"ended by {why}"


# --- the command ------------------------------------------------------------------------------


def test_status_for_people(
    running: Ledger, layout: SweepLayout, call: Callable[..., tuple[int, str, str]]
) -> None:
    live(layout)
    code, out, err = call("status", "toy")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("sweep toy: running since 20")
    assert lines[0].endswith(f"by {layout.lock.read_text()}")
    assert lines[1] == "5/9 trials ended, 3 running, 1 completed, 1 diverged, 3 failed"
    assert lines[2] == "workers: 1 training, 2 holding; engine: up"
    assert [" ".join(line.split()) for line in lines[3:7]] == [
        "trial epoch dev weighted F1 now",
        "5 waits for teacher 3f2a91c0 (training for 41 s)",
        "6 has not reported yet",
        "7 2/5 50.00 trains fusion",
    ]
    assert lines[7:] == [
        "failed: trials 1, 3: teacher: cannot load 'x' in two lines",
        "failed: trial 2: video: [bold]broken[/bold]",
        "diverged: trial 4: fusion: diverged: nan",
        "MLflow: up to date",
    ]


def test_status_names_nodes_and_what_waits_for_them(
    running: Ledger, layout: SweepLayout, call: Callable[..., tuple[int, str, str]]
) -> None:
    nodes = [
        {"name": "h1", "has": "8 CPU, 1 GPU, H100", "workers": {"training": 1, "idle": 0}},
        {"name": "h2", "has": "8 CPU, 0 GPU", "workers": {}},
    ]
    wanted = ["3 workers of 1 CPU, 1 GPU: wait for a node of type gpu for 12 s"]
    live(layout, nodes=nodes, wanted=wanted)
    lines = call("status", "toy")[1].splitlines()
    assert lines[3:6] == [
        "node h1 (8 CPU, 1 GPU, H100): 1 training",
        "node h2 (8 CPU, 0 GPU): no worker",
        *wanted,
    ]
    tree = json.loads(call("status", "toy", "--json")[1])
    assert (tree["nodes"], tree["wanted"]) == (nodes, wanted)


def test_a_driver_that_hangs_is_shown(
    running: Ledger, layout: SweepLayout, call: Callable[..., tuple[int, str, str]]
) -> None:
    live(layout, time=time.time_ns() // 1_000_000 - 125_000)
    assert "as of 2:05 ago: no update from the driver since" in call("status", "toy")[1]


def test_a_killed_sweep_shows_how_to_resume(
    killed: SweepLayout, call: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "tune.results.status.read_sweep", lambda layout: _with_warnings(layout, "space is short")
    )
    out = call("status", "toy")[1]
    assert out.startswith("sweep toy: killed after 20")
    assert "3 unfinished" in out
    # Its stages are in the ledger with its first epoch only.
    assert "6                          no epoch yet; finished stages are kept\n" in out
    assert "warning: space is short\n" in out
    assert out.endswith("to resume: magtkd sweep --resume toy --storage magtkd-results\n")


def _with_warnings(layout: SweepLayout, *warnings: str) -> Any:
    state: Any = read_sweep(layout)
    state.warnings = list(warnings)
    return state


@pytest.mark.parametrize(
    ("behind", "line", "lacks"),
    [
        (lambda layout, uri: 0, "MLflow: up to date", {"state": "up to date", "num_events": 0}),
        (
            lambda layout, uri: 3,
            "MLflow: lacks 3 events; magtkd sync toy --storage magtkd-results",
            {"state": "behind", "num_events": 3},
        ),
        (
            lambda layout, uri: _raise(StorageLostError("tracking at http://a:secret@h: away")),
            "MLflow: cannot be reached: tracking at http://***@h: away",
            {"state": "unreachable", "reason": "tracking at http://***@h: away"},
        ),
    ],
    ids=["up to date", "behind", "unreachable"],
)
def test_what_mlflow_lacks(
    killed: SweepLayout,
    call: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
    behind: Callable[..., int | None],
    line: str,
    lacks: dict[str, Any],
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://a:secret@h")
    monkeypatch.setattr(tune.tracking, "num_behind", behind)
    code, out, _ = call("status", "toy")
    assert code == 0
    assert line in out.splitlines()
    code, out, _ = call("status", "toy", "--json")
    assert code == 0
    assert json.loads(out)["mlflow"] == {"address": "http://***@h"} | lacks
    assert "secret" not in out


def test_a_sweep_that_is_not_recorded(
    layout: SweepLayout, call: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tune.tracking, "num_behind", lambda layout, uri: 1)
    with open_ledger(layout) as ledger:
        ledger.append(SweepOpened(name="toy", config=CONFIG, tracked=False))
    assert (
        "MLflow: not recorded; to record it: magtkd sync toy --storage" in call("status", "toy")[1]
    )


def _raise(error: Exception) -> int | None:
    raise error


def test_an_unknown_sweep(killed: SweepLayout, call: Callable[..., tuple[int, str, str]]) -> None:
    for command in ("status", "sync"):
        code, out, err = call(command, "toj")
        assert (code, out) == (2, "")
        assert "sweep 'toj': not found" in err
        assert "did you mean 'toy'?" in err


# --- sync -------------------------------------------------------------------------------------


def test_sync_reports_what_it_sent(
    killed: SweepLayout, call: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Any] = []

    def send(
        layout: SweepLayout, uri: str, *, artifacts_of: Any, note: Callable[[str], None]
    ) -> int:
        sent.append((layout, uri, artifacts_of(read_sweep(killed).trials[1])["config.yaml"]))
        note("tracking: trial-0000 lacks artifacts")
        return 7 if len(sent) == 1 else 0

    monkeypatch.setattr(tune.tracking, "sync", send)
    uri = "http://ann:secret@host/x"
    code, out, err = call("sync", "toy", "--tracking-uri", uri)
    assert (code, out) == (0, "MLflow: http://***@host/x: sent 7 events\n")
    assert err == "magtkd: tracking: trial-0000 lacks artifacts\n"
    assert call("sync", "toy")[1] == "MLflow: up to date\n"
    default = f"sqlite:///{killed.root}/mlflow.db"
    assert [one[:2] for one in sent] == [(killed, address) for address in (uri, default)]
    assert "dropout: 0.1" in sent[0][2]


def test_sync_to_a_store_that_is_away(
    killed: SweepLayout, call: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ann:secret@127.0.0.1:1/x")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    code, out, err = call("sync", "toy")
    assert (code, out) == (75, "")
    assert err.startswith("magtkd: tracking at http://***@127.0.0.1:1/x: Connection refused")
    assert err.count("\n") == 1


@pytest.mark.slow
def test_sync_of_a_sweep_that_was_not_tracked(
    layout: SweepLayout, call: Callable[..., tuple[int, str, str]]
) -> None:
    with open_ledger(layout) as ledger:
        ledger.append(SweepOpened(name="toy", config=CONFIG, versions={}, tracked=False))
        ledger.append(TrialSuggested(trial=0, values={"fusion.dropout": 0.1}))
        ledger.append(EpochReported(trial=0, epoch=1, metrics={"dev/weighted_f1": 0.25}))
        ledger.append(TrialEnded(trial=0, state=TrialStatus.STOPPED))
        ledger.append(SweepClosed(reason=SweepEnd.FINISHED))
    database = f"sqlite:///{layout.root}/mlflow.db"
    assert call("sync", "toy") == (0, f"MLflow: {database}: sent 5 events\n", "")
    assert call("sync", "toy") == (0, "MLflow: up to date\n", "")
    import mlflow

    client = mlflow.MlflowClient(database)
    experiment = client.get_experiment_by_name("toy")
    runs = client.search_runs([experiment.experiment_id])
    assert {run.info.run_name for run in runs} == {"toy", "trial-0000"}
