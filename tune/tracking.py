"""MLflow as a projection of the ledger: it can fall behind, catch up, or be made anew.

A thread of the driver follows the ledger's file, turns events into updates of runs, and sends
these in batches. Every time stamp comes from the ledger, so that sending twice changes nothing:
MLflow keeps one row where run, metric, time, step and value agree. How far the ledger has been sent
is itself a tag of the sweep's run, so that it cannot disagree with what the store holds.

    experiment                  named like the sweep
    └── run NAME                the sweep: its resolved configuration as parameters
        └── run trial-0007      values as parameters, reports as metrics, stage keys as tags
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import re
import shutil
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from magtkd.errors import MagtkdError, StorageError, SweepError
from tune.ledger import (
    Event,
    SweepState,
    TrialState,
    read_events,
    tail_events,
    take_lock,
)

__all__ = ["Tracker", "default_tracking_uri", "redact", "sync"]

ArtifactsOf = Callable[[TrialState], Mapping[str, str | bytes]]

INTERVAL_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 5.0
LONGEST_WAIT_SECONDS = 30.0  # between attempts at a store that is away
BUSY_SHARE = 0.1  # of one core, while tracking keeps up
CHUNK_BYTES = 1 << 18
NUM_HTTP_THREADS = 4
MAX_METRICS = 1000
MAX_PAIRS = 100
MAX_PAIR_CHARACTERS = 100_000
MAX_PARAM_LENGTH = 6000
MAX_TAG_LENGTH = 5000
MAX_NAME_LENGTH = 250

STATUS = {
    "running": "RUNNING",
    "completed": "FINISHED",
    "stopped": "KILLED",
    "diverged": "FAILED",
    "failed": "FAILED",
}


# --- addresses --------------------------------------------------------------------------------


def default_tracking_uri(storage: str | Path) -> str:
    """`MLFLOW_TRACKING_URI` where it is set, else an SQLite file in the storage folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path(storage).resolve()}/mlflow.db"


def redact(text: str) -> str:
    """The text with user names, passwords and tokens in its addresses replaced by `***`."""
    text = re.sub(r"(?<!sqlite)(://)[^\s'\"]*@", r"\1***@", text)
    return re.sub(
        r"([?&][^=&\s]*(?:pass|pwd|token|secret|key|sig|credential)[^=&\s]*=)[^&\s'\"]*",
        r"\1***",
        text,
        flags=re.IGNORECASE,
    )


def _reason(error: BaseException) -> str:
    """Why something failed, in one short line: what the system said, where it is at the root."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return redact(cause.strerror)
        cause = cause.__cause__ or cause.__context__
    lines = str(error).splitlines() or [type(error).__name__]
    return redact(lines[0])[:200]


# --- what MLflow takes ------------------------------------------------------------------------


def _legal(name: str) -> str:
    """The name as MLflow takes it; one that had to change carries a checksum, to stay distinct."""
    parts = [re.sub(r"[^\w.\- ]", "_", part) for part in name.split("/")]
    clean = "/".join("_" if part in ("", ".", "..") else part for part in parts)
    if clean == name and len(name) <= MAX_NAME_LENGTH:
        return name
    return f"{clean[: MAX_NAME_LENGTH - 9]}-{zlib.crc32(name.encode('utf-8', 'replace')):08x}"


def _text(value: Any, max_length: int) -> str:
    """A value as text: words as they are, the rest as JSON."""
    words = isinstance(value, str) and value
    text = redact(value if words else json.dumps(value, ensure_ascii=False))
    return text if len(text) <= max_length else text[: max_length - 1] + "…"


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of a tree by dotted name; lists and empty mappings are leaves."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _portions(pairs: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Parameters or tags in portions that one request may hold, by number and by length."""
    portion: dict[str, str] = {}
    length = 0
    for name, text in pairs.items():
        if portion and (len(portion) == MAX_PAIRS or length + len(text) > MAX_PAIR_CHARACTERS):
            yield portion
            portion, length = {}, 0
        portion[name] = text
        length += len(text)
    if portion:
        yield portion


# --- from events to updates of runs -----------------------------------------------------------


@dataclass
class RunUpdate:
    """What a run has yet to be told; `number` is None for the sweep's own run."""

    number: int | None
    name: str
    start_time: int
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: list[tuple[str, float, int, int]] = field(default_factory=list)
    """Name, value, time in milliseconds, step."""
    status: str | None = None
    end_time: int | None = None
    ended: TrialState | None = None
    """The trial, where its artifacts are due."""

    def param(self, name: str, value: Any) -> None:
        """Add a parameter."""
        self.params[_legal(name)] = _text(value, MAX_PARAM_LENGTH)

    def tag(self, name: str, value: Any) -> None:
        """Add a tag, or change it."""
        self.tags[_legal(name)] = _text(value, MAX_TAG_LENGTH)

    def metric(self, name: str, value: float | None, at: int, step: int) -> None:
        """Add a point; None is not a number, and MLflow keeps it as that."""
        self.metrics.append((_legal(name), math.nan if value is None else float(value), at, step))

    def close(self, status: str, end_time: int | None) -> None:
        """Set the status, and the end where there is one."""
        self.status, self.end_time = status, end_time


class Projection:
    """Folds events and collects in `updates` what they mean for the runs."""

    def __init__(self) -> None:
        self.state = SweepState()
        self.updates: dict[int | None, RunUpdate] = {}
        self._num_completed = 0
        self._best: float | None = None

    def apply(self, event: Event) -> None:
        """Fold in one event; what it repeats is left out."""
        if not self.state.apply(event):
            return
        project = _PROJECT.get(event["kind"])
        if project is not None:
            project(self, event)

    def sweep(self) -> RunUpdate:
        """The update of the sweep's run."""
        state = self.state
        return self.updates.setdefault(None, RunUpdate(None, state.name, state.opened_time))

    def trial(self, event: Event) -> tuple[TrialState, RunUpdate]:
        """The event's trial and the update of its run."""
        trial = self.state.trials[event["trial"]]
        name = f"trial-{trial.number:04d}"
        update = RunUpdate(trial.number, name, trial.suggested_time)
        return trial, self.updates.setdefault(trial.number, update)

    def opened(self, event: Event) -> None:
        """The sweep begins."""
        update = self.sweep()
        for name, value in _flatten(self.state.config):
            update.param(name, value)
        for name, value in _flatten(self.state.versions, "version."):
            update.tag(name, value)

    def resumed(self, event: Event) -> None:
        """What an interruption had closed is open again."""
        self.sweep().close("RUNNING", None)
        self._mark_running("running", "RUNNING", None)

    def closed(self, event: Event) -> None:
        """The sweep ends; trials that a resume would go on with are closed until then."""
        finished = event["reason"] == "finished"
        self.sweep().close("FINISHED" if finished else "KILLED", event["time"])
        self._mark_running("interrupted", "KILLED", event["time"])

    def _mark_running(self, tag: str, status: str, end_time: int | None) -> None:
        for trial in self.state.trials.values():
            if trial.state == "running":
                _, update = self.trial({"trial": trial.number})
                update.tag("magtkd.state", tag)
                update.close(status, end_time)

    def suggested(self, event: Event) -> None:
        """A trial begins."""
        trial, update = self.trial(event)
        update.tag("magtkd.state", "running")
        for name, value in trial.values.items():
            update.param(name, value)

    def stages(self, event: Event) -> None:
        """A trial has some of its stages."""
        trial, update = self.trial(event)
        for stage in event["stages"]:
            record = trial.stages[stage]
            update.tag(f"stage.{stage}.key", record.key)
            update.tag(f"stage.{stage}.outcome", record.outcome)
            update.tag(f"stage.{stage}.seconds", record.seconds)
            update.metric(f"seconds/{stage}", record.seconds, event["time"], 0)

    def changed(self, event: Event) -> None:
        """Values that population based training changed: numbers as metrics, the rest as tags."""
        trial, update = self.trial(event)
        for name, value in event["values"].items():
            told = {epoch: new[name] for epoch, new in trial.changes.items() if name in new}
            if not isinstance(value, int | float) or isinstance(value, bool):
                update.tag(f"values.{name}", told)
                continue
            before = trial.values.get(name)
            if len(told) == 1 and isinstance(before, int | float):
                update.metric(f"values/{name}", before, trial.suggested_time, 0)
            update.metric(f"values/{name}", value, event["time"], event["epoch"])

    def reported(self, event: Event) -> None:
        """An epoch's metrics."""
        trial, update = self.trial(event)
        for name, value in event["metrics"].items():
            update.metric(name, value, event["time"], event["epoch"])
        # Sent from the update, and never read again: the thread's memory must not grow with it.
        trial.reports.clear()

    def ended(self, event: Event) -> None:
        """A trial is over."""
        trial, update = self.trial(event)
        update.tag("magtkd.state", trial.state)
        if trial.message:
            update.tag("magtkd.message", trial.message)
        if trial.epoch is not None:
            update.tag("magtkd.epoch", trial.epoch)
        for name, value in self._chosen(trial).items():
            update.metric(name, value, event["time"], trial.epoch or 0)
        update.close(STATUS[trial.state], event["time"])
        update.ended = trial
        self._follow_best(trial, event["time"])

    def revealed(self, event: Event) -> None:
        """Test metrics of a selected trial."""
        trial, update = self.trial(event)
        for name in ("accuracy", "weighted_f1"):
            update.metric(f"test/{name}", event["test"][name], event["time"], trial.epoch or 0)

    def _chosen(self, trial: TrialState) -> dict[str, float | None]:
        """Dev metrics of the epoch that was chosen, where the table of runs shows the last."""
        chosen = {
            f"dev/{name}": (trial.dev or {}).get(name) for name in ("accuracy", "weighted_f1")
        }
        names = (objective.metric for objective in self.state.objectives)
        chosen |= dict(zip(names, trial.objectives or [], strict=False))
        return {f"chosen/{name}": value for name, value in chosen.items() if value is not None}

    def _follow_best(self, trial: TrialState, at: int) -> None:
        """The best so far over the completed trials, as a chart of the sweep's run."""
        objectives = self.state.objectives
        value = (trial.objectives or [None])[0]
        if trial.state != "completed" or len(objectives) > 1 or value is None:
            return
        choose = max if objectives[0].mode == "max" else min
        self._num_completed += 1
        self._best = value if self._best is None else choose(self._best, value)
        self.sweep().metric(f"best/{objectives[0].metric}", self._best, at, self._num_completed)


_PROJECT: dict[str, Callable[[Projection, Event], None]] = {
    "sweep_opened": Projection.opened,
    "sweep_resumed": Projection.resumed,
    "sweep_closed": Projection.closed,
    "trial_suggested": Projection.suggested,
    "trial_stages": Projection.stages,
    "trial_changed": Projection.changed,
    "trial_report": Projection.reported,
    "trial_ended": Projection.ended,
    "test_revealed": Projection.revealed,
}


# --- the runs of a sweep in a store -----------------------------------------------------------


def _import_mlflow() -> Any:
    """MLflow, quiet and without retries of its own; takes seconds, so only the thread does it."""
    for name, value in {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_LOGGING_LEVEL": "CRITICAL",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
        "GIT_PYTHON_REFRESH": "quiet",
    }.items():
        os.environ.setdefault(name, value)
    import mlflow

    return mlflow


def _sqlite_path(uri: str) -> Path | None:
    """The file of an SQLite address; None for other addresses."""
    path = uri.removeprefix("sqlite:///").partition("?")[0]
    return Path(path) if path != uri and path and path != ":memory:" else None


def _create_sqlite(mlflow: Any, path: Path) -> None:
    """Make a new SQLite store that other processes see complete or not at all.

    MLflow migrates a new store for seconds; two that do so at once, or one that is killed
    meanwhile, leave it unusable.
    """
    while not path.exists():
        lock = take_lock(path.with_name(f".{path.name}.lock"))
        if lock is None:
            time.sleep(0.1)
            continue
        try:
            if not path.exists():
                _migrate_aside(mlflow, path)
        finally:
            os.close(lock)


def _migrate_aside(mlflow: Any, path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".mlflow-") as folder:
        mlflow.MlflowClient(f"sqlite:///{folder}/new.db").search_experiments(max_results=1)
        # The client keeps its file open: a copy, so that no one shares it.
        shutil.copyfile(f"{folder}/new.db", f"{folder}/done.db")
        os.replace(f"{folder}/done.db", path)


class SweepRuns:
    """The runs of one sweep in one tracking store; every call may raise when the store is away."""

    def __init__(
        self,
        uri: str,
        opened: Event,
        artifact_root: Path,
        artifacts_of: ArtifactsOf | None,
        say: Callable[[str], None],
    ) -> None:
        mlflow = _import_mlflow()
        if (sqlite := _sqlite_path(uri)) is not None:
            _create_sqlite(mlflow, sqlite)
        self._mlflow = mlflow
        self._client = mlflow.MlflowClient(tracking_uri=uri)
        self._sweep_id, self._name = opened["sweep_id"], opened["name"]
        self._artifacts_of, self._say = artifacts_of, say
        self._experiment_id = self._find_experiment(uri, artifact_root)
        self._runs, self._cursor = self._find_runs()
        if None not in self._runs:
            self._create(RunUpdate(None, self._name, opened["time"]))

    @property
    def cursor(self) -> int:
        """Up to which byte of the ledger this store has been told, as far as it knows."""
        return self._cursor

    def set_cursor(self, offset: int) -> None:
        """Note in the store that it has been told the ledger up to this byte."""
        if offset != self._cursor:
            self._client.set_tag(self._runs[None], "magtkd.cursor", str(offset))
            self._cursor = offset

    def send(self, update: RunUpdate) -> None:
        """Bring one run up to date; the status last, so that an ended run is whole.

        What the store refuses for good (a run that someone deleted) is said and left out.
        """
        try:
            run_id = self._runs.get(update.number) or self._create(update)
            self._log(run_id, update)
            if update.ended is not None:
                self._upload(run_id, update.ended)
            if update.status == "RUNNING":
                self._client.update_run(run_id, status="RUNNING")
            elif update.status is not None:
                self._client.set_terminated(run_id, update.status, update.end_time)
        except self._mlflow.MlflowException as error:
            if error.error_code not in _REFUSALS:
                raise
            self._say(f"tracking: {update.name} is left out: {_reason(error)}")

    def _find_experiment(self, uri: str, artifact_root: Path) -> str:
        experiment = self._client.get_experiment_by_name(self._name)
        if experiment is None:
            # A database has no place for artifacts; a server has its own.
            is_database = re.match(r"(sqlite|postgresql|mysql|mssql)(\+\w+)?:", uri)
            location = artifact_root.resolve().as_uri() if is_database else None
            tags = {"mlflow.experimentKind": "custom_model_development"}
            return str(self._client.create_experiment(self._name, location, tags))
        if experiment.lifecycle_stage == "deleted":
            self._client.restore_experiment(experiment.experiment_id)
        return str(experiment.experiment_id)

    def _find_runs(self) -> tuple[dict[int | None, str], int]:
        """The sweep's runs by trial, and the cursor that its own run holds."""
        found: dict[int | None, Any] = {}
        query = f"tags.`magtkd.sweep` = '{self._sweep_id}'"
        token = None
        while True:
            page = self._client.search_runs([self._experiment_id], query, page_token=token)
            for run in page:
                number = run.data.tags.get("magtkd.trial")
                key = None if number is None else int(number)
                kept, extra = run, found.get(key)
                # Made twice where the answer to the first request was lost: one stays, the same
                # whoever looks.
                if extra is not None:
                    kept, extra = sorted((run, extra), key=lambda one: str(one.info.run_id))
                    self._client.delete_run(extra.info.run_id)
                found[key] = kept
            token = page.token
            if not token:
                break
        cursor = found[None].data.tags.get("magtkd.cursor", "0") if None in found else "0"
        return {key: run.info.run_id for key, run in found.items()}, int(cursor)

    def _create(self, update: RunUpdate) -> str:
        tags = {
            "magtkd.sweep": self._sweep_id,
            "mlflow.source.name": "magtkd",
            "mlflow.source.type": "LOCAL",
        }
        if update.number is not None:
            tags["magtkd.trial"] = str(update.number)
            tags["mlflow.parentRunId"] = self._runs[None]
        run = self._client.create_run(
            self._experiment_id,
            start_time=update.start_time,
            tags=tags,
            run_name=update.name,
        )
        self._runs[update.number] = str(run.info.run_id)
        return self._runs[update.number]

    def _log(self, run_id: str, update: RunUpdate) -> None:
        entities = self._mlflow.entities
        params = list(_portions(update.params))
        tags = list(_portions(update.tags))
        # A first portion of each kind goes in one request, which holds 1000 entities in all.
        room = MAX_METRICS - 2 * MAX_PAIRS
        points = [update.metrics[at : at + room] for at in range(0, len(update.metrics), room)]
        for index in range(max(len(params), len(tags), len(points))):
            self._client.log_batch(
                run_id,
                metrics=[entities.Metric(*point) for point in _nth(points, index, [])],
                params=[entities.Param(*pair) for pair in _nth(params, index, {}).items()],
                tags=[entities.RunTag(*pair) for pair in _nth(tags, index, {}).items()],
            )

    def _upload(self, run_id: str, trial: TrialState) -> None:
        files = self._files_of(trial)
        if not files:
            return
        with tempfile.TemporaryDirectory(prefix="magtkd-") as folder:
            for name, content in files.items():
                data = content.encode() if isinstance(content, str) else content
                target = Path(folder) / name
                assert target.resolve().is_relative_to(Path(folder).resolve()), name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data)
            self._log_artifacts(run_id, folder, trial.number)

    def _log_artifacts(self, run_id: str, folder: str, number: int) -> None:
        for last_attempt in (False, True):
            try:
                self._client.log_artifacts(run_id, folder)
                return
            except Exception as error:
                # Raises when the store is away. Where it answers, only the artifacts' place is bad.
                self._client.get_run(run_id)
                if last_attempt:
                    self._say(f"tracking: trial {number} has no artifacts: {_reason(error)}")

    def _files_of(self, trial: TrialState) -> dict[str, str | bytes]:
        files: dict[str, str | bytes] = {}
        if trial.dev is not None:
            files["report.json"] = json.dumps({"epoch": trial.epoch, "dev": trial.dev}, indent=2)
        if self._artifacts_of is not None:
            try:
                files |= self._artifacts_of(trial)
            except Exception as error:
                # Not the store's fault, so that trying again would not help.
                self._say(f"tracking: trial {trial.number} lacks artifacts: {_reason(error)}")
        return files


_REFUSALS = (
    "INVALID_PARAMETER_VALUE",
    "INVALID_STATE",
    "RESOURCE_ALREADY_EXISTS",
    "RESOURCE_DOES_NOT_EXIST",
)


def _nth(portions: list[Any], index: int, default: Any) -> Any:
    return portions[index] if index < len(portions) else default


# --- following the ledger ---------------------------------------------------------------------


class Follower:
    """Sends a ledger to a store, step by step, from where the store says that it is."""

    def __init__(
        self,
        ledger_path: str | Path,
        tracking_uri: str,
        artifacts_of: ArtifactsOf | None,
        say: Callable[[str], None],
    ) -> None:
        self._path, self._uri = Path(ledger_path), tracking_uri
        self._artifacts_of, self._say_to, self._said = artifacts_of, say, set[str]()
        self._projection = Projection()
        self._runs: SweepRuns | None = None
        self._offset = self._sent = 0
        self._lock: int | None = None
        self._pool = (
            ThreadPoolExecutor(NUM_HTTP_THREADS) if tracking_uri.startswith("http") else None
        )

    def step(self) -> bool:
        """Send about one chunk; whether there may be more.

        Raises:
            SweepError: the ledger is damaged, or another process sends it.
            Exception: whatever MLflow raises when its store is away; the next step goes on.
        """
        if self._runs is None and not self._connect():
            return False
        assert self._runs is not None
        try:
            more = bool(self._projection.updates) or self._read()
            self._send(self._runs)
            self._runs.set_cursor(self._offset)
        except Exception:
            # A request may have been heard though its answer was lost: look again what is there.
            self._runs = None
            raise
        self._sent = self._offset
        return more

    def num_left(self) -> int:
        """Events that have not been sent."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._sent)
                return sum(line.endswith(b"\n") for line in file)
        except OSError:
            return 0

    def close(self) -> None:
        """Let another process send this ledger."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def catch_up(self) -> int:
        """Send everything there is; how many events that were.

        Raises:
            SweepError: the ledger is missing or damaged.
            Exception: as for `step`.
        """
        if not self._connect():
            raise SweepError(f"{self._path}: nothing is recorded; there is nothing to send")
        num_left = self.num_left()
        while self.step():
            pass
        return num_left - self.num_left()

    def _say(self, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            self._say_to(message)

    def _connect(self) -> bool:
        opened = next(read_events(self._path), None)
        if opened is None:
            return False
        if self._lock is None:
            digest = hashlib.sha256(self._uri.encode()).hexdigest()[:8]
            self._lock = take_lock(self._path.parent / f"tracking-{digest}.lock")
            if self._lock is None:
                raise StorageError(
                    f"sweep {opened['name']!r}: another process is sending it to "
                    f"{redact(self._uri)}; wait for its end"
                )
        self._runs = SweepRuns(
            self._uri, opened, self._path.parent / "mlflow", self._artifacts_of, self._say
        )
        if self._offset == 0:
            self._skip_to(self._runs.cursor)
        return True

    def _skip_to(self, cursor: int) -> None:
        """Fold what the store has been told before."""
        if cursor > self._path.stat().st_size:
            return
        while self._offset < cursor:
            self._read(cursor)
        self._projection.updates.clear()
        self._sent = self._offset

    def _read(self, end: int | None = None) -> bool:
        """Fold the next chunk, up to `end` at most; whether there may be more."""
        start = self._offset
        size = CHUNK_BYTES if end is None else min(CHUNK_BYTES, end - start)
        events, self._offset = tail_events(self._path, start, size)
        for event in events:
            try:
                self._projection.apply(event)
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                if isinstance(error, SweepError):
                    raise
                raise SweepError(
                    f"{self._path}: after byte {start}: {event['kind']} event of time "
                    f"{event['time']} is not whole: {error!r}; restore the ledger from a copy"
                ) from None
        return self._offset - start >= CHUNK_BYTES // 2

    def _send(self, runs: SweepRuns) -> None:
        updates = self._projection.updates
        if self._pool is None:
            for number in list(updates):
                runs.send(updates[number])
                del updates[number]
            return
        # A server's answers take time rather than work: ask for many at once.
        sending = {n: self._pool.submit(runs.send, update) for n, update in updates.items()}
        errors = {n: future.exception() for n, future in sending.items()}
        for number, error in errors.items():
            if error is None:
                del updates[number]
        for error in errors.values():
            if error is not None:
                raise error


class Tracker:
    """Follows a ledger's file in a thread and keeps MLflow up to date; never raises into the sweep.

    Args:
        ledger_path: the ledger; its first event may come later.
        tracking_uri: MLflow's address.
        artifacts_of: the files of an ended trial (which comes without its reports), name to
            content; called in the thread.
        say: gets one line where a person should know something; called in the thread.
    """

    def __init__(
        self,
        ledger_path: str | Path,
        tracking_uri: str,
        *,
        artifacts_of: ArtifactsOf | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self._uri = redact(tracking_uri)
        self._say = say or logging.getLogger(__name__).warning
        self._follower = Follower(ledger_path, tracking_uri, artifacts_of, self._say)
        self._behind = False
        self._closing, self._abandoned = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="tracking", daemon=True)
        self._thread.start()

    @property
    def behind(self) -> bool:
        """Whether the store is away."""
        return self._behind

    def num_left(self) -> int:
        """Events that MLflow has not been told."""
        return self._follower.num_left()

    def close(self, timeout: float = 30.0) -> int:
        """Wait for MLflow to catch up, at most `timeout` seconds; how many events are left."""
        self._closing.set()
        self._thread.join(timeout)
        self._abandoned.set()
        self._thread.join(min(timeout, 1.0))
        return self.num_left()

    def _run(self) -> None:
        wait = 0.0
        try:
            while not self._abandoned.is_set():
                closing = self._closing.is_set()
                started = time.thread_time()
                try:
                    more = self._follower.step()
                except Exception as error:
                    if not self._is_passing(error):
                        return
                    wait = min(max(1.0, 2 * wait), LONGEST_WAIT_SECONDS)
                    self._pause(wait)
                    continue
                self._recovered(more)
                if closing and not more:
                    return
                spent = time.thread_time() - started
                wait = 0.0
                if not more:
                    pause = min(spent / BUSY_SHARE, LONGEST_PAUSE_SECONDS)
                    self._closing.wait(max(INTERVAL_SECONDS, pause))
        finally:
            self._follower.close()

    def _is_passing(self, error: Exception) -> bool:
        """Say that tracking is behind, once; whether trying again makes sense."""
        if isinstance(error, MagtkdError) and not isinstance(error, StorageError):
            self._say(f"tracking has stopped: {error}")
            return False
        if not self._behind:
            self._behind = True
            self._say(
                f"tracking is behind: {self._uri}: {_reason(error)}; "
                "the sweep goes on, and tracking catches up by itself"
            )
        return True

    def _recovered(self, more: bool) -> None:
        if self._behind and not more:
            self._behind = False
            self._say(f"tracking has caught up: {self._uri}")

    def _pause(self, seconds: float) -> None:
        """Wait; when the sweep is being closed, only as long as is polite to the store."""
        if self._closing.wait(seconds):
            self._abandoned.wait(min(seconds, 1.0))


def sync(
    ledger_path: str | Path,
    tracking_uri: str,
    *,
    artifacts_of: ArtifactsOf | None = None,
    say: Callable[[str], None] | None = None,
) -> int:
    """Send to MLflow whatever of a ledger it lacks; how many events that were.

    Raises:
        SweepError: the ledger is missing or damaged, or another process sends it.
        StorageError: the store cannot be reached, or breaks off.
    """
    say = say or logging.getLogger(__name__).warning
    follower = Follower(ledger_path, tracking_uri, artifacts_of, say)
    try:
        return follower.catch_up()
    except MagtkdError:
        raise
    except Exception as error:
        raise StorageError(
            f"tracking at {redact(tracking_uri)}: {_reason(error)}; try again when it answers"
        ) from None
    finally:
        follower.close()
