"""The runs of a sweep in an MLflow store: finding, making and filling them.

experiment                  named like the sweep
└── run NAME                the sweep: how it searches as parameters, `sweep.yaml`
    └── run trial-0007      values as parameters, reports as metrics, stage keys as tags
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from magtkd.locks import take_lock
from tune.addresses import reason, redact
from tune.notes import sweep_headline
from tune.projection import NOTE_TAG, RunUpdate
from tune.state import Event, SweepState, TrialState

__all__ = ["ArtifactsOf", "SweepRuns"]

ArtifactsOf = Callable[[TrialState], Mapping[str, str | bytes]]

MAX_METRICS = 1000
MAX_PAIRS = 100
MAX_PAIR_CHARACTERS = 100_000
REFUSALS = (
    "INVALID_PARAMETER_VALUE",
    "INVALID_STATE",
    "RESOURCE_ALREADY_EXISTS",
    "RESOURCE_DOES_NOT_EXIST",
)


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
        self._experiment_id = self._find_experiment(uri, opened, artifact_root)
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
            self._upload(run_id, update)
            if update.status == "RUNNING":
                self._client.update_run(run_id, status="RUNNING")
            elif update.status is not None:
                self._client.set_terminated(run_id, update.status, update.end_time)
        except self._mlflow.MlflowException as error:
            if error.error_code not in REFUSALS:
                raise
            self._say(f"tracking: {update.name} is left out: {reason(error)}")

    def _find_experiment(self, uri: str, opened: Event, artifact_root: Path) -> str:
        experiment = self._client.get_experiment_by_name(self._name)
        if experiment is None:
            # A database has no place for artifacts; a server has its own.
            is_database = re.match(r"(sqlite|postgresql|mysql|mssql)(\+\w+)?:", uri)
            location = artifact_root.resolve().as_uri() if is_database else None
            state = SweepState()
            state.apply(opened)
            tags = {
                "mlflow.experimentKind": "custom_model_development",
                NOTE_TAG: redact(sweep_headline(state)),
            }
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

    def _upload(self, run_id: str, update: RunUpdate) -> None:
        files = self._files_of(update)
        if not files:
            return
        with tempfile.TemporaryDirectory(prefix="magtkd-") as folder:
            for name, content in files.items():
                data = redact(content).encode() if isinstance(content, str) else content
                target = Path(folder) / name
                assert target.resolve().is_relative_to(Path(folder).resolve()), name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data)
            self._log_artifacts(run_id, folder, update.name)

    def _log_artifacts(self, run_id: str, folder: str, name: str) -> None:
        for last_attempt in (False, True):
            try:
                self._client.log_artifacts(run_id, folder)
                return
            except Exception as error:
                # Raises when the store is away. Where it answers, only the artifacts' place is bad.
                self._client.get_run(run_id)
                if last_attempt:
                    self._say(f"tracking: {name} has no artifacts: {reason(error)}")

    def _files_of(self, update: RunUpdate) -> dict[str, str | bytes]:
        files: dict[str, str | bytes] = {**update.files}
        if update.ended is not None and self._artifacts_of is not None:
            try:
                files |= self._artifacts_of(update.ended)
            except Exception as error:
                # Not the store's fault, so that trying again would not help.
                self._say(f"tracking: {update.name} lacks artifacts: {reason(error)}")
        return files


def _nth(portions: list[Any], index: int, default: Any) -> Any:
    return portions[index] if index < len(portions) else default


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


# --- the store --------------------------------------------------------------------------------


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
