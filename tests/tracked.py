"""A sweep with everything that can happen in one, and what a store should say of it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy

from tune.ledger.file import Ledger, read_events

STATUS = {
    "completed": "FINISHED",
    "stopped": "KILLED",
    "diverged": "FAILED",
    "failed": "FAILED",
    "running": "RUNNING",
}
NUM_EPOCHS = 5
ENDS = ("completed", "stopped", "diverged", "failed", "completed", "completed")
SECRET = "s3://ann:s3cr3t@host/mosi.parquet"
PER_CLASS = {"joy": {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 4}}


# --- a sweep ----------------------------------------------------------------------------------


def _reports(number: int, epochs: range) -> Iterator[tuple[str, dict[str, Any]]]:
    for epoch in epochs:
        value = math.nan if (number, epoch) == (2, 3) else number + epoch / 7
        metrics = {"dev/weighted_f1": value, "dev/f1/joy, strong": 0.3, "train/loss": -epoch}
        yield "trial_report", {"trial": number, "epoch": epoch, "metrics": metrics}


def _end(number: int) -> tuple[str, dict[str, Any]]:
    state = ENDS[number]
    told: dict[str, Any] = {"trial": number, "state": state}
    if state in ("diverged", "failed"):
        told["message"] = f"fusion: {state} on {SECRET}"
    if state == "completed":
        dev = {"accuracy": 0.7, "weighted_f1": 0.6, "per_class": PER_CLASS}
        told |= {"dev": dev, "epoch": 2, "objectives": [number + 2 / 7]}
    return "trial_ended", told


def _changed(number: int, epoch: int) -> tuple[str, dict[str, Any]]:
    values = {"fusion.dropout": 0.1 * epoch, "fusion.detach_anchor": epoch == 4}
    told = {"trial": number, "epoch": epoch, "values": values}
    return "trial_changed", told | {"base": {"fusion.dropout": 0.1}, "changes": {epoch: values}}


def _started(number: int) -> Iterator[tuple[str, dict[str, Any]]]:
    values = {"fusion.depth": number, "fusion.dropout": 0.1, "data.path": SECRET}
    yield "trial_suggested", {"trial": number, "values": values}
    for stage in ("teacher", "fusion"):
        record = {"key": f"{stage}{number}", "outcome": "trained", "seconds": 1.5}
        yield "trial_stages", {"trial": number, "stages": {stage: record}}


def story(name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Kinds and fields of events: trials that end in every way, an interruption, a resume.

    Of the trials that go on after the resume, some epochs are reported again.
    """
    objective = {"metric": "dev/weighted_f1", "mode": "max"}
    search = {"sampler": "tpe", "num_trials": len(ENDS)} | {f"n{one}": one for one in range(101)}
    config = {"name": name, "objective": objective, "data": {"path": SECRET}, "search": search}
    yield "sweep_opened", {"name": name, "config": config, "versions": {"ray": "2.60"}}
    for number in range(4):
        yield from _started(number)
        yield from _reports(number, range(1, 3))
    yield _changed(1, 2)
    yield "warning", {"message": f"no {SECRET}"}
    yield "sweep_closed", {"reason": "interrupted"}
    yield "sweep_resumed", {}
    for number in range(4):
        yield from _reports(number, range(2, NUM_EPOCHS + 1))
    yield _changed(1, 4)
    for number in range(4):
        yield _end(number)
    for number in (4, 5):
        yield from _started(number)
        yield from _reports(number, range(1, NUM_EPOCHS + 1))
        yield _end(number)
    yield "test_revealed", {"trial": 5, "test": {"accuracy": 0.5, "weighted_f1": 0.4}}
    yield "sweep_closed", {"reason": "finished"}


def write_story(folder: Path) -> Path:
    """A ledger with all of the story; its path."""
    with Ledger(folder / "ledger.jsonl") as ledger:
        for kind, fields in story(folder.name):
            ledger.append(kind, **fields)
    return ledger.path


# --- what a store says ------------------------------------------------------------------------


def rows(database: str, name: str) -> dict[str, dict[str, Any]]:
    """What the tables of a store have of a sweep, by name of run, in order; NaN as None.

    A run that is there twice is an error; ids of runs are replaced by their names.
    """
    engine = sqlalchemy.create_engine(database, poolclass=sqlalchemy.pool.NullPool)
    with engine.connect() as connection:

        def ask(what: str) -> list[Any]:
            query = f"SELECT r.run_uuid, {what} experiments e ON e.experiment_id = r.experiment_id"
            where = " WHERE e.name = :name AND r.lifecycle_stage = 'active'"
            return sorted(
                map(tuple, connection.execute(sqlalchemy.text(query + where), {"name": name}))
            )

        runs = ask("r.name, r.status, r.start_time, r.end_time FROM runs r JOIN")
        params = ask("t.key, t.value FROM params t JOIN runs r ON r.run_uuid = t.run_uuid JOIN")
        tags = ask("t.key, t.value FROM tags t JOIN runs r ON r.run_uuid = t.run_uuid JOIN")
        points = "t.key, t.step, t.is_nan, t.value, t.timestamp"
        metrics = ask(f"{points} FROM metrics t JOIN runs r ON r.run_uuid = t.run_uuid JOIN")
        latest = ask(f"{points} FROM latest_metrics t JOIN runs r ON r.run_uuid = t.run_uuid JOIN")
    engine.dispose()
    names = {run_id: run_name for run_id, run_name, *_ in runs}
    assert len(set(names.values())) == len(runs), sorted(names.values())
    found: dict[str, dict[str, Any]] = {
        run_name: {"status": status, "times": times, "params": {}, "tags": {}}
        | {"metrics": {}, "latest": {}}
        for _, run_name, status, *times in runs
    }
    for run_id, key, value in params:
        found[names[run_id]]["params"][key] = value
    for run_id, key, value in tags:
        found[names[run_id]]["tags"][key] = names.get(value, value)
    for kind, told in (("metrics", metrics), ("latest", latest)):
        for run_id, key, step, is_nan, value, at in told:
            point = (step, None if is_nan else value, at)
            found[names[run_id]][kind].setdefault(key, []).append(point)
    return found


def check_equal(found: dict[str, dict[str, Any]], path: Path) -> None:
    """Check rows against the lines of a ledger: runs, series, statuses and times, no more."""
    events = list(read_events(path))
    sweep = events[0]["name"]
    suggested = [event for event in events if event["kind"] == "trial_suggested"]
    ended: dict[int, dict[str, Any]] = {}
    for event in events:
        if event["kind"] == "trial_ended":
            ended.setdefault(event["trial"], event)
    last = [event for event in events if event["kind"].startswith("sweep_")][-1]
    assert set(found) == {sweep} | {f"trial-{event['trial']:04d}" for event in suggested}
    parent = found[sweep]
    assert parent["status"] == {"finished": "FINISHED", "interrupted": "KILLED"}[last["reason"]]
    assert parent["times"] == [events[0]["time"], last["time"]]
    for event in suggested:
        number = event["trial"]
        run = found[f"trial-{number:04d}"]
        reported = {
            key: points
            for key, points in run["metrics"].items()
            if key.startswith(("dev/", "train/"))
        }
        told = _series(events, number)
        assert sorted(reported.values(), key=str) == sorted(told.values(), key=str)
        assert {key for key in told if "," not in key} <= set(reported)
        end = ended.get(number, {"state": "running", "time": last["time"]})
        expected = STATUS[end["state"]] if number in ended else "KILLED"
        assert (run["status"], run["times"]) == (expected, [event["time"], end["time"]])
        assert run["tags"]["mlflow.parentRunId"] == sweep
        assert set(run["params"]) == set(event["values"])
        if number in ended:
            assert run["tags"]["magtkd.state"] == end["state"]
            assert ("magtkd.message" in run["tags"]) == bool(end.get("message"))
        assert all(len(points) == 1 for points in run["latest"].values())


def _series(events: list[dict[str, Any]], number: int) -> dict[str, list[Any]]:
    """Per metric (step, value, time), each epoch as it was first reported."""
    series: dict[str, list[Any]] = {}
    for event in events:
        if event["kind"] == "trial_report" and event["trial"] == number:
            for name, value in event["metrics"].items():
                points = series.setdefault(name, [])
                if event["epoch"] not in [step for step, _, _ in points]:
                    points.append((event["epoch"], value, event["time"]))
    return series
