"""MLflow equals the ledger: after one sending, after two, after an outage, after a resume."""

from __future__ import annotations

import math
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from magtkd.errors import StorageLostError, SweepError
from magtkd.metrics import Scores
from magtkd.pipeline import StageRecord
from tests.integration.servers import free_port, wait_for
from tests.tracked import rows, write_story
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
    TrialState,
    TrialStatus,
    TrialSuggested,
    open_ledger,
    read_events,
)
from tune.tracking import Tracker, num_behind, sync
from tune.tracking.store import import_mlflow

# MLflow's own: it uses an option of SQLAlchemy that is going away.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")

CONFIG = {
    "name": "mosi",
    "objective": {"metric": "dev/weighted_f1", "mode": "max"},
    "data": {"path": "s3://user:secret@host/mosi.parquet"},
    "space": {"fusion.depth": {"int": [1, 3]}},
}
MANY = {"note": "x" * 7000, **{f"n{index}": index for index in range(211)}}
"""More values, and longer ones, than one request to MLflow may hold."""
STATUS = {"completed": "FINISHED", "stopped": "KILLED", "diverged": "FAILED", "running": "RUNNING"}


# --- a sweep, and what a store should say of it -----------------------------------------------


def open_sweep(root: Path, name: str = "mosi") -> Ledger:
    ledger = open_ledger(SweepLayout(root, name))
    ledger.append(SweepOpened(name=name, config=CONFIG, versions={"ray": "2.60"}))
    return ledger


def start_trial(ledger: Ledger, number: int) -> None:
    values = {"fusion.depth": number, "fusion.dropout": 0.1, "teacher.encoder": "tiny"}
    if number == 2:
        values |= MANY
    ledger.append(TrialSuggested(trial=number, values=values))
    record = StageRecord(f"key{number}", "trained", 1.5)
    ledger.append(StagesRecorded(trial=number, stages={"teacher": record}))


def report(ledger: Ledger, number: int, epoch: int) -> None:
    value = math.nan if (number, epoch) == (2, 3) else number + epoch / 7
    metrics = {"dev/weighted_f1": value, "dev/f1/joy, strong": 0.3, "train/loss": epoch}
    ledger.append(EpochReported(trial=number, epoch=epoch, metrics=metrics))


def end_trial(ledger: Ledger, number: int, state: str) -> None:
    diverged, completed = state == "diverged", state == "completed"
    ledger.append(
        TrialEnded(
            trial=number,
            state=TrialStatus(state),
            message="fusion: diverged" if diverged else None,
            dev=None if diverged else Scores(0.7, 0.6, {"joy": 0.5}),
            epoch=2 if completed else None,
            objectives=[number + 2 / 7] if completed else None,
        )
    )


def write_sweep(ledger: Ledger) -> None:
    """Three trials at once that end in three ways; one epoch is reported twice."""
    for number in range(3):
        start_trial(ledger, number)
    for epoch in range(1, 6):
        for number in range(3):
            report(ledger, number, epoch)
    report(ledger, 1, 5)
    for number, state in enumerate(("completed", "stopped", "diverged")):
        end_trial(ledger, number, state)


def expected_series(path: Path) -> dict[str, dict[str, list[tuple[int, float | None, int]]]]:
    """Per run and reported metric (step, value, time), straight from the lines of the ledger."""
    series: dict[str, dict[str, list[tuple[int, float | None, int]]]] = {}
    for event in read_events(path):
        if not isinstance(event, EpochReported):
            continue
        run = series.setdefault(f"trial-{event.trial:04d}", {})
        for name, value in event.metrics.items():
            points = run.setdefault(name, [])
            if event.epoch not in [step for step, _, _ in points]:
                points.append((event.epoch, value, event.time))
    return series


def snapshot(uri: str) -> dict[str, dict[str, Any]]:
    """Everything that a store knows of the only sweep in it, by name of run; NaN as None."""
    client = client_of(uri)
    (experiment,) = [one for one in client.search_experiments() if one.name != "Default"]
    runs = client.search_runs([experiment.experiment_id])
    names = [run.info.run_name for run in runs]
    assert len(set(names)) == len(names)
    known = {}
    for run in runs:
        history = {
            name: [
                (point.step, None if math.isnan(point.value) else point.value, point.timestamp)
                for point in client.get_metric_history(run.info.run_id, name)
            ]
            for name in run.data.metrics
        }
        known[run.info.run_name] = {
            "id": run.info.run_id,
            "status": run.info.status,
            "times": (run.info.start_time, run.info.end_time),
            "params": run.data.params,
            "tags": run.data.tags,
            "history": history,
        }
    return known


def assert_equal_to_ledger(uri: str, path: Path) -> dict[str, dict[str, Any]]:
    """Series, statuses and times of the store are those of the ledger; the snapshot."""
    known = snapshot(uri)
    series = expected_series(path)
    events = list(read_events(path))
    ended = {event.trial: event for event in events if isinstance(event, TrialEnded)}
    suggested = [event for event in events if isinstance(event, TrialSuggested)]
    assert set(known) == {"mosi"} | {f"trial-{event.trial:04d}" for event in suggested}
    for event in suggested:
        run = known[f"trial-{event.trial:04d}"]
        reported = {
            name: points
            for name, points in run["history"].items()
            if name.startswith(("dev/", "train/"))
        }
        expected = series.get(f"trial-{event.trial:04d}", {})
        assert sorted(reported.values(), key=str) == sorted(expected.values(), key=str)
        end = ended.get(event.trial)
        assert run["status"] == STATUS[end.state if end else "running"]
        assert run["times"] == (event.time, end.time if end else None)
        assert run["tags"]["mlflow.parentRunId"] == known["mosi"]["id"]
        assert run["params"]["fusion.depth"] == str(event.values["fusion.depth"])
    return known


def client_of(uri: str) -> Any:
    return import_mlflow().MlflowClient(uri)


def run_ids(uri: str) -> dict[str, str]:
    return {name: run["id"] for name, run in snapshot(uri).items()}


def forget_cursor(uri: str) -> None:
    """Make the next sending start at the beginning."""
    client_of(uri).delete_tag(snapshot(uri)["mosi"]["id"], "magtkd.cursor")


# --- a store in a file ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated store without runs: making one takes seconds."""
    folder = tmp_path_factory.mktemp("store")
    with open_sweep(folder, "first") as ledger:
        pass
    assert sync(ledger.layout, f"sqlite:///{folder}/mlflow.db") == 1
    client = client_of(f"sqlite:///{folder}/mlflow.db")
    client.rename_experiment("1", "gone")
    client.delete_experiment("1")
    return folder / "mlflow.db"


@pytest.fixture
def store(empty_store: Path, tmp_path: Path) -> str:
    shutil.copyfile(empty_store, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"


def test_store_equals_ledger_however_often_it_is_sent(tmp_path: Path, store: str) -> None:
    with open_sweep(tmp_path) as ledger:
        write_sweep(ledger)
        closed = ledger.append(SweepClosed(reason=SweepEnd.FINISHED))
    num_events = len(list(read_events(ledger.path)))
    assert sync(ledger.layout, store) == num_events
    known = assert_equal_to_ledger(store, ledger.path)
    assert sync(ledger.layout, store) == 0
    forget_cursor(store)
    assert sync(ledger.layout, store) == num_events
    assert snapshot(store) == known

    parent, first, last = known["mosi"], known["trial-0000"], known["trial-0002"]
    assert (parent["status"], parent["times"][1]) == ("FINISHED", closed.time)
    assert last["params"]["n210"] == "210"
    assert len(last["params"]["note"]) == 6000
    assert "data.path" not in parent["params"]
    assert parent["tags"]["magtkd.best"] == "trial-0000"
    assert [point[:2] for point in parent["history"]["best/dev/weighted_f1"]] == [(1, 2 / 7)]
    assert [point[:2] for point in first["history"]["chosen/dev/weighted_f1"]] == [(0, 2 / 7)]
    assert first["tags"]["stage.teacher.key"] == "key0"
    assert (last["tags"]["magtkd.state"], last["tags"]["magtkd.message"]) == (
        "diverged",
        "fusion: diverged",
    )


def test_tracker_follows_and_goes_on_after_a_resume(tmp_path: Path, store: str) -> None:
    noted: list[str] = []
    ledger = open_sweep(tmp_path)
    tracker = Tracker(ledger.layout, store, note=noted.append)
    start_trial(ledger, 0)
    report(ledger, 0, 1)
    ledger.append(SweepClosed(reason=SweepEnd.INTERRUPTED))
    assert tracker.close() == 0
    known = snapshot(store)
    assert (known["mosi"]["status"], known["trial-0000"]["status"]) == ("KILLED", "KILLED")
    assert known["trial-0000"]["tags"]["magtkd.state"] == "interrupted"

    tracker = Tracker(ledger.layout, store, note=noted.append)
    ledger.append(SweepResumed())
    wait_for(lambda: snapshot(store)["trial-0000"]["status"] == "RUNNING")
    for epoch in (1, 2, 3):
        report(ledger, 0, epoch)
    start_trial(ledger, 1)
    end_trial(ledger, 0, "completed")
    end_trial(ledger, 1, "stopped")
    ledger.append(SweepClosed(reason=SweepEnd.FINISHED))
    ledger.close()
    assert tracker.close() == 0
    resumed = assert_equal_to_ledger(store, ledger.path)
    assert resumed["trial-0000"]["id"] == known["trial-0000"]["id"]
    assert noted == []


def test_artifacts_are_in_the_storage_folder(tmp_path: Path, store: str) -> None:
    def artifacts_of(trial: TrialState) -> dict[str, str | bytes]:
        if trial.number == 1:
            raise StorageLostError("no artifact 77")
        return {
            "config.yaml": "path: s3://ann:pa@host/x\n",
            "fusion/predictions.arrow": b"\x00\x01",
        }

    noted: list[str] = []
    with open_sweep(tmp_path) as ledger:
        for number in (0, 1):
            start_trial(ledger, number)
            end_trial(ledger, number, "completed")
    sync(ledger.layout, store, artifacts_of=artifacts_of, note=noted.append)
    known = snapshot(store)
    folder = ledger.layout.mlflow_artifacts / known["trial-0000"]["id"] / "artifacts"
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert found == {"report.json", "config.yaml", "fusion/predictions.arrow"}
    assert (folder / "fusion" / "predictions.arrow").read_bytes() == b"\x00\x01"
    assert "s3://***@host/" in (folder / "config.yaml").read_text()
    sweep = ledger.layout.mlflow_artifacts / known["mosi"]["id"] / "artifacts" / "sweep.yaml"
    assert "path: s3://***@host/mosi.parquet" in sweep.read_text()
    listed = client_of(store).list_artifacts(known["trial-0001"]["id"])
    assert [one.path for one in listed] == ["report.json"]
    assert noted == ["tracking: trial-0001 lacks artifacts: no artifact 77"]


def test_artifacts_that_cannot_be_kept_do_not_hold_the_rest_up(tmp_path: Path, store: str) -> None:
    noted: list[str] = []
    with open_sweep(tmp_path) as ledger:
        start_trial(ledger, 0)
        end_trial(ledger, 0, "completed")
    (ledger.layout.mlflow_artifacts).write_text("a file where a folder should be")
    tracker = Tracker(ledger.layout, store, note=noted.append)
    assert tracker.close() == 0
    assert snapshot(store)["trial-0000"]["status"] == "FINISHED"
    assert [line for line in noted if "trial-0000 has no artifacts" in line]


def test_a_run_that_someone_deleted_is_left_out(tmp_path: Path, store: str) -> None:
    noted: list[str] = []
    ledger = open_sweep(tmp_path)
    start_trial(ledger, 0)
    start_trial(ledger, 1)
    tracker = Tracker(ledger.layout, store, note=noted.append)
    wait_for(lambda: tracker.num_left() == 0)
    client_of(store).delete_run(snapshot(store)["trial-0000"]["id"])
    for number in (0, 1):
        end_trial(ledger, number, "completed")
    ledger.close()
    assert tracker.close() == 0
    assert [line[:34] for line in noted] == ["tracking: trial-0000 is left out: "]
    assert snapshot(store)["trial-0001"]["status"] == "FINISHED"


def test_a_run_made_twice_is_kept_once(tmp_path: Path, store: str) -> None:
    with open_sweep(tmp_path) as ledger:
        start_trial(ledger, 0)
    sync(ledger.layout, store)
    client = client_of(store)
    first = client.get_run(snapshot(store)["trial-0000"]["id"])
    tags = {name: first.data.tags[name] for name in ("magtkd.sweep", "magtkd.trial")}
    client.create_run(first.info.experiment_id, tags=tags, run_name="trial-0000")
    forget = client.search_runs([first.info.experiment_id], "tags.`magtkd.trial` = '0'")
    assert len(forget) == 2
    sync(ledger.layout, store)
    assert set(snapshot(store)) == {"mosi", "trial-0000"}


def test_two_do_not_send_one_ledger_to_one_store(tmp_path: Path, store: str) -> None:
    with open_sweep(tmp_path) as ledger:
        tracker = Tracker(ledger.layout, store)
        wait_for(lambda: tracker.num_left() == 0)
        with pytest.raises(
            StorageLostError, match="'mosi': another process is sending it to sqlite"
        ):
            sync(ledger.layout, store)
        assert tracker.close() == 0
        assert sync(ledger.layout, store) == 0


def test_a_damaged_ledger_stops_tracking_with_a_note(tmp_path: Path, store: str) -> None:
    noted: list[str] = []
    with open_sweep(tmp_path) as ledger:
        pass
    with ledger.path.open("ab") as file:
        file.write(b'{"kind":"trial_suggested","time":1,"trial":0}\n')
    tracker = Tracker(ledger.layout, store, note=noted.append)
    tracker.close()
    (line,) = noted
    assert "tracking has stopped" in line
    assert "trial_suggested" in line
    with pytest.raises(SweepError, match=r"is not an event: .* `values`; restore"):
        sync(ledger.layout, store)


def test_a_run_made_twice_is_made_whole(tmp_path: Path, store: str) -> None:
    layout = write_story(SweepLayout(tmp_path, "mosi"))
    sync(layout, store)
    found = rows(store, "mosi")
    client, ids = client_of(store), run_ids(store)
    for name in ("mosi", "trial-0000", "trial-0001"):
        run = client.get_run(ids[name])
        for _ in range(2):
            client.create_run(run.info.experiment_id, run.info.start_time, run.data.tags, name)
    # Whichever of the three stays, it gets everything.
    assert sync(layout, store) == len(list(read_events(layout.ledger)))
    assert rows(store, "mosi") == found
    assert sync(layout, store) == 0


def test_a_store_that_is_put_back_from_a_copy_gets_the_rest(tmp_path: Path, store: str) -> None:
    noted: list[str] = []
    file = Path(store.removeprefix("sqlite:///"))
    ledger = open_sweep(tmp_path)
    tracker = Tracker(ledger.layout, store, note=noted.append)
    start_trial(ledger, 0)
    report(ledger, 0, 1)
    wait_for(lambda: tracker.num_left() == 0)
    early = file.read_bytes()
    start_trial(ledger, 1)
    for epoch in (2, 3):
        report(ledger, 0, epoch)
    wait_for(lambda: tracker.num_left() == 0)
    file.write_bytes(early)
    for number in (0, 1):
        end_trial(ledger, number, "completed")
    ledger.append(SweepClosed(reason=SweepEnd.FINISHED))
    ledger.close()
    assert tracker.close() == 0
    assert_equal_to_ledger(store, ledger.path)
    assert {line.split(":")[0] for line in noted} <= {
        "tracking is behind",
        "tracking has caught up",
    }


def test_a_run_that_was_deleted_stays_so_after_a_resume(tmp_path: Path, store: str) -> None:
    noted: list[str] = []
    ledger = open_sweep(tmp_path)
    for number in (0, 1):
        start_trial(ledger, number)
    sync(ledger.layout, store)
    client_of(store).delete_run(run_ids(store)["trial-0000"])
    for number in (0, 1):
        end_trial(ledger, number, "completed")
    ledger.close()
    sync(ledger.layout, store, note=noted.append)
    assert set(rows(store, "mosi")) == {"mosi", "trial-0001"}
    assert [line[:34] for line in noted] == ["tracking: trial-0000 is left out: "]
    # Without the sweep's own run nothing is kept of it, and all is made anew.
    for run_id in run_ids(store).values():
        client_of(store).delete_run(run_id)
    sync(ledger.layout, store)
    assert_equal_to_ledger(store, ledger.path)


def test_a_parameter_that_is_refused_does_not_cost_the_metrics(tmp_path: Path, store: str) -> None:
    noted: list[str] = []
    ledger = open_sweep(tmp_path)
    start_trial(ledger, 0)
    sync(ledger.layout, store)
    run_id = run_ids(store)["trial-0000"]
    client_of(store).log_param(run_id, "fusion.heads", "3")
    ledger.close()
    events = ledger.path.read_text().replace('"fusion.depth"', '"fusion.heads"')
    ledger.path.write_text(events)
    forget_cursor(store)
    with Ledger(ledger.layout) as ledger:
        report(ledger, 0, 1)
        end_trial(ledger, 0, "completed")
    sync(ledger.layout, store, note=noted.append)
    run = snapshot(store)["trial-0000"]
    assert run["status"] == "FINISHED"
    assert [point[0] for point in run["history"]["train/loss"]] == [1]
    assert [line[:43] for line in noted] == ["tracking: trial-0000 lacks its params: Chan"]


def test_text_that_no_database_takes_is_replaced(tmp_path: Path, store: str) -> None:
    with open_sweep(tmp_path) as ledger:
        start_trial(ledger, 0)
        ledger.append(TrialEnded(trial=0, state=TrialStatus.FAILED, message="a\0b \ud800"))
    sync(ledger.layout, store)
    tags = rows(store, "mosi")["trial-0000"]["tags"]
    assert tags["magtkd.message"] == "a\N{REPLACEMENT CHARACTER}b ?"


# --- how far behind ---------------------------------------------------------------------------


def test_how_far_behind_a_store_is_makes_nothing_in_it(tmp_path: Path, store: str) -> None:
    ledger = open_sweep(tmp_path)
    start_trial(ledger, 0)
    absent = tmp_path / "none.db"
    assert num_behind(ledger.layout, f"sqlite:///{absent}") == 3
    assert not absent.exists()
    empty = tmp_path / "empty.db"
    empty.touch()
    assert num_behind(ledger.layout, f"sqlite:///{empty}") == 3
    assert empty.read_bytes() == b""
    before = Path(store.removeprefix("sqlite:///")).read_bytes()
    assert num_behind(ledger.layout, store) == 3
    assert Path(store.removeprefix("sqlite:///")).read_bytes() == before
    sync(ledger.layout, store)
    assert num_behind(ledger.layout, store) == 0
    report(ledger, 0, 1)
    assert num_behind(ledger.layout, store) == 1
    ledger.close()
    with ledger.path.open("ab") as file:
        file.write(b'{"kind":"trial_re')
    assert num_behind(ledger.layout, store) == 1


@pytest.mark.parametrize("scheme", ["http", "postgresql"])
def test_nobody_knows_how_far_behind_a_store_is_that_is_away(tmp_path: Path, scheme: str) -> None:
    with open_sweep(tmp_path) as ledger:
        with pytest.raises(StorageLostError, match=r"tracking at \w+://\*\*\*@127") as caught:
            num_behind(ledger.layout, f"{scheme}://ann:secret@127.0.0.1:{free_port()}")
        assert "secret" not in str(caught.value)
    with pytest.raises(SweepError, match="cannot read the ledger"):
        num_behind(SweepLayout(tmp_path, "none"), "http://127.0.0.1:1")


# --- a store that is away ---------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["http", "postgresql"])
def test_a_store_that_is_away_costs_nothing_and_is_noted_once(tmp_path: Path, scheme: str) -> None:
    noted: list[str] = []
    ledger = open_sweep(tmp_path)
    uri = f"{scheme}://ann:secret@127.0.0.1:{free_port()}"
    tracker = Tracker(ledger.layout, uri, note=noted.append)
    write_sweep(ledger)
    wait_for(lambda: tracker.behind)
    ledger.close()
    assert tracker.close(timeout=1.5) == len(list(read_events(ledger.path)))
    (line,) = noted
    assert line.startswith(f"tracking is behind: {scheme}://***@127.0.0.1:")
    assert "Connection refused; the sweep continues" in line.replace("\n", "")
    with pytest.raises(
        StorageLostError, match=r"tracking at \w+://\*\*\*@.*: .*Connection refused"
    ):
        sync(ledger.layout, uri)


def test_a_sweep_does_not_wait_at_its_end_for_a_store_that_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tune.tracking.tracker.PATIENCE_SECONDS", 0.1)
    with open_sweep(tmp_path) as ledger:
        tracker = Tracker(ledger.layout, f"http://127.0.0.1:{free_port()}", note=[].append)
        wait_for(lambda: tracker.behind)
        assert tracker.close(timeout=1e6) == 1


def test_what_waits_for_a_store_is_not_in_memory(
    tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tune.tracking.follower.CHUNK_BYTES", 4096)
    monkeypatch.setattr("tune.tracking.tracker.LONGEST_WAIT_SECONDS", 0.02)
    ledger = open_sweep(tmp_path)
    start_trial(ledger, 0)
    tracker = Tracker(ledger.layout, store, note=[].append)
    wait_for(lambda: tracker.num_left() == 0)

    def refuse(*_: Any, **__: Any) -> None:
        raise ConnectionRefusedError(111, "Connection refused")

    with monkeypatch.context() as patch:
        patch.setattr(import_mlflow().MlflowClient, "log_batch", refuse)
        report(ledger, 0, 1)
        wait_for(lambda: tracker.behind)
        tracemalloc.start()
        metrics = {f"dev/f1/{label}": 0.5 for label in range(100)}
        for epoch in range(2, 2000):
            ledger.append(EpochReported(trial=0, epoch=epoch, metrics=metrics))
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert ledger.num_bytes > 3_000_000
        assert held < 1_000_000
        assert tracker.close(timeout=0.1) == 1999
    ledger.close()


# --- processes --------------------------------------------------------------------------------

SYNC = (
    "import sys; from tune.ledger import SweepLayout; from tune.tracking import sync; "
    "print(sync(SweepLayout.of(sys.argv[1], sys.argv[2]), sys.argv[3]))"
)


@pytest.mark.slow
def test_a_new_store_survives_two_at_once_and_a_kill(tmp_path: Path) -> None:
    names = ("one", "two")
    for name in names:
        open_sweep(tmp_path, name).close()
    uri = f"sqlite:///{tmp_path}/mlflow.db"

    def start(name: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", SYNC, str(tmp_path), name, uri]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    killed = start(names[0])
    wait_for(lambda: list(tmp_path.glob(".mlflow-*/new.db")))
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not (tmp_path / "mlflow.db").exists()
    both = [start(name) for name in names]
    assert [process.communicate() for process in both] == [("1\n", "")] * 2


@pytest.mark.parametrize(("num_steps", "left"), [(6, 0), (10**9, 1)])
def test_closing_waits_for_as_long_as_the_store_gets_on(monkeypatch, num_steps, left):
    class Slow:
        """Six steps of a tenth of a second each; then the end, or no progress any more."""

        def __init__(self, *arguments):
            self.sent, self.seconds, self._num_steps = 0, 0.0, 0

        def step(self):
            time.sleep(0.1)
            self._num_steps += 1
            self.sent = min(self._num_steps, 6)
            return self._num_steps < num_steps

        def num_left(self):
            return int(self._num_steps < num_steps)

        def close(self):
            pass

    monkeypatch.setattr("tune.tracking.tracker.Follower", Slow)
    tracker = Tracker(SweepLayout(Path(), "x"), "sqlite:///nowhere.db", note=lambda message: None)
    assert tracker.close(timeout=0.3) == left
