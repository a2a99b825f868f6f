"""A sweep with everything that can happen in one, and what a store should have of it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy

from magtkd.metrics import Scores
from magtkd.pipeline import StageRecord
from tune.ledger import (
    EpochReported,
    Event,
    Ledger,
    StagesRecorded,
    SweepClosed,
    SweepEnd,
    SweepLayout,
    SweepOpened,
    SweepResumed,
    TestRevealed,
    TrialChanged,
    TrialEnded,
    TrialStatus,
    TrialSuggested,
    Warned,
    read_events,
)
from tune.space import Values

STATUS = {
    "completed": "FINISHED",
    "stopped": "KILLED",
    "diverged": "FAILED",
    "failed": "FAILED",
    "running": "RUNNING",
}
NUM_EPOCHS = 5
ENDS = [
    TrialStatus(state)
    for state in ("completed", "stopped", "diverged", "failed", "completed", "completed")
]
SECRET = "s3://ann:s3cr3t@host/mosi.parquet"
MANY: Values = {f"n{index}": index for index in range(101)}
"""More parameters than one request to MLflow may hold."""


# --- a sweep ----------------------------------------------------------------------------------


def _reports(number: int, epochs: range) -> Iterator[Event]:
    for epoch in epochs:
        value = math.nan if (number, epoch) == (2, 3) else number + epoch / 7
        metrics = {"dev/weighted_f1": value, "dev/f1/joy, strong": 0.3, "train/loss": -epoch}
        yield EpochReported(trial=number, epoch=epoch, metrics=metrics)


def _end(number: int) -> Event:
    state = ENDS[number]
    if state == TrialStatus.COMPLETED:
        dev = Scores(0.7, 0.6, {"joy": 0.5})
        objectives: list[float | None] = [number + 2 / 7]
        return TrialEnded(trial=number, state=state, dev=dev, epoch=2, objectives=objectives)
    broken = state in (TrialStatus.DIVERGED, TrialStatus.FAILED)
    message = f"fusion: {state} on {SECRET}" if broken else None
    return TrialEnded(trial=number, state=state, message=message)


def _changed(number: int, epoch: int) -> Event:
    values: Values = {"fusion.dropout": 0.1 * epoch, "fusion.detach_anchor": epoch == 4}
    changed = {name.removeprefix("fusion."): value for name, value in values.items()}
    return TrialChanged(
        trial=number,
        epoch=epoch,
        values=values,
        base={"fusion.dropout": 0.1},
        changes={epoch: changed},
    )


def _started(number: int) -> Iterator[Event]:
    values: Values = {"fusion.depth": number, "fusion.dropout": 0.1, "data.path": SECRET}
    yield TrialSuggested(trial=number, values=values | MANY if number == 0 else values)
    for stage in ("teacher", "fusion"):
        record = StageRecord(f"{stage}{number}", "trained", 1.5)
        yield StagesRecorded(trial=number, stages={stage: record})


def story(name: str) -> Iterator[Event]:
    """Events: trials that end in every way, an interruption, a resume.

    Of the trials that continue after the resume, some epochs are reported again.
    """
    objective = {"metric": "dev/weighted_f1", "mode": "max"}
    search = {"sampler": "tpe", "num_trials": len(ENDS)}
    config = {"name": name, "objective": objective, "data": {"path": SECRET}, "search": search}
    yield SweepOpened(name=name, config=config, versions={"ray": "2.60"})
    for number in range(4):
        yield from _started(number)
        yield from _reports(number, range(1, 3))
    yield _changed(1, 2)
    yield Warned(message=f"no {SECRET}")
    yield SweepClosed(reason=SweepEnd.INTERRUPTED)
    yield SweepResumed()
    for number in range(4):
        yield from _reports(number, range(2, NUM_EPOCHS + 1))
    yield _changed(1, 4)
    for number in range(4):
        yield _end(number)
    for number in (4, 5):
        yield from _started(number)
        yield from _reports(number, range(1, NUM_EPOCHS + 1))
        yield _end(number)
    yield TestRevealed(trial=5, test=Scores(0.5, 0.4))
    yield SweepClosed(reason=SweepEnd.FINISHED)


def write_story(layout: SweepLayout) -> SweepLayout:
    """A ledger with all of the story."""
    with Ledger(layout) as ledger:
        for event in story(layout.name):
            ledger.append(event)
    return layout


# --- what a store has ------------------------------------------------------------------------


def rows(database: str, name: str) -> dict[str, dict[str, Any]]:
    """What the tables of a store have of a sweep, by name of run, in order; NaN as None.

    A duplicated run is an error; ids of runs are replaced by their names.
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
    for kind, points in (("metrics", metrics), ("latest", latest)):
        for run_id, key, step, is_nan, value, at in points:
            point = (step, None if is_nan else value, at)
            found[names[run_id]][kind].setdefault(key, []).append(point)
    return found


def check_equal(found: dict[str, dict[str, Any]], path: Path) -> None:
    """Check rows against the lines of a ledger: runs, series, statuses and times, no more."""
    events = list(read_events(path))
    opened = events[0]
    assert isinstance(opened, SweepOpened)
    suggested = [event for event in events if isinstance(event, TrialSuggested)]
    ended: dict[int, TrialEnded] = {}
    for event in events:
        if isinstance(event, TrialEnded):
            ended.setdefault(event.trial, event)
    last = [event for event in events if isinstance(event, SweepClosed)][-1]
    assert set(found) == {opened.name} | {f"trial-{event.trial:04d}" for event in suggested}
    parent = found[opened.name]
    assert parent["status"] == {"finished": "FINISHED", "interrupted": "KILLED"}[last.reason]
    assert parent["times"] == [opened.time, last.time]
    for begun in suggested:
        number = begun.trial
        run = found[f"trial-{number:04d}"]
        reported = {
            key: points
            for key, points in run["metrics"].items()
            if key.startswith(("dev/", "train/"))
        }
        expected = _series(events, number)
        assert sorted(reported.values(), key=str) == sorted(expected.values(), key=str)
        assert {key for key in expected if "," not in key} <= set(reported)
        end = ended.get(number)
        status, end_time = (STATUS[end.state], end.time) if end else ("KILLED", last.time)
        assert (run["status"], run["times"]) == (status, [begun.time, end_time])
        assert run["tags"]["mlflow.parentRunId"] == opened.name
        assert set(run["params"]) == set(begun.values)
        if end is not None:
            assert run["tags"]["magtkd.state"] == end.state
            assert ("magtkd.message" in run["tags"]) == bool(end.message)
        assert all(len(points) == 1 for points in run["latest"].values())


def _series(events: list[Event], number: int) -> dict[str, list[Any]]:
    """Per metric (step, value, time), each epoch as it was first reported."""
    series: dict[str, list[Any]] = {}
    for event in events:
        if isinstance(event, EpochReported) and event.trial == number:
            for name, value in event.metrics.items():
                points = series.setdefault(name, [])
                if event.epoch not in [step for step, _, _ in points]:
                    points.append((event.epoch, value, event.time))
    return series
