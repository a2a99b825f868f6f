"""Filling the runs of a sweep: what an update asks of the store, in few requests, side by side."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tune.ledger import TrialState
from tune.redact import reason, redact
from tune.tracking.projection import RunUpdate
from tune.tracking.runs import SweepRuns
from tune.tracking.side_by_side import SideBySide
from tune.tracking.store import NUM_UPLOADS, import_mlflow, num_writers

__all__ = ["ArtifactsOf", "Sender"]

ArtifactsOf = Callable[[TrialState], Mapping[str, str | bytes]]
Job = Callable[[], None]
Batch = dict[str, list[tuple[Any, ...]]]

MAX_METRICS = 1000
MAX_PAIRS = 100
MAX_PAIR_CHARACTERS = 100_000
GONE = "RESOURCE_DOES_NOT_EXIST"
REFUSALS = ("INVALID_PARAMETER_VALUE", "INVALID_STATE", "RESOURCE_ALREADY_EXISTS")


class Sender:
    """Sends updates to the runs of a sweep; `seconds` is the time of a core that threads took."""

    def __init__(
        self, artifacts_of: ArtifactsOf | None, note: Callable[[str], None], scratch: Path
    ) -> None:
        self._artifacts_of, self._note, self._scratch = artifacts_of, note, scratch
        self._side_by_side = SideBySide()

    @property
    def seconds(self) -> float:
        """Seconds of a core that the threads of requests have taken so far."""
        return self._side_by_side.seconds

    def send(self, runs: SweepRuns, updates: dict[int | None, RunUpdate]) -> None:
        """Bring runs up to date, and take from `updates` those that are.

        The status comes last, so that an ended run is whole. What the store refuses for good (a
        run that someone deleted) is noted and left out.

        Raises:
            Exception: whatever MLflow raises when its store is away.
        """
        # Beside the ledger, where the next driver removes what one that was killed left.
        self._scratch.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._scratch) as folder:
            sending = _Sending(
                runs,
                updates,
                artifacts_of=self._artifacts_of,
                note=self._note,
                folder=Path(folder),
            )
            sending.run(self._side_by_side)


class _Sending:
    """One sending of updates."""

    def __init__(
        self,
        runs: SweepRuns,
        updates: dict[int | None, RunUpdate],
        *,
        artifacts_of: ArtifactsOf | None,
        note: Callable[[str], None],
        folder: Path,
    ) -> None:
        self._mlflow, self._client, self._runs = import_mlflow(), runs.client, runs
        self._updates, self._artifacts_of = updates, artifacts_of
        self._note, self._folder = note, folder
        self._num_writers = num_writers(runs.uri)
        self._writing = threading.Semaphore(self._num_writers)

    def run(self, side_by_side: SideBySide) -> None:
        writers = self._num_writers
        uploads = NUM_UPLOADS if writers > 1 else 1
        steps = ((self._create, writers), (self._fill, uploads), (self._close, writers))
        todo, failed = list(self._updates), None
        for jobs_of, num_threads in steps:
            jobs = [(number, job) for number in todo for job in jobs_of(self._updates[number])]
            done, error = side_by_side.run(
                [self._unless_refused(number, job) for number, job in jobs], num_threads
            )
            missed = {number for place, (number, _) in enumerate(jobs) if place not in done}
            todo = [n for n in todo if n in self._updates and n not in missed]
            failed = failed or error
        for number in todo:
            del self._updates[number]
        if failed is not None:
            raise failed

    def _unless_refused(self, number: int | None, job: Job) -> Job:
        """The job; an update that the store refuses for good is noted and dropped."""

        def guarded() -> None:
            if number not in self._updates:
                return
            try:
                job()
            except self._mlflow.MlflowException as error:
                if error.error_code == GONE:
                    # Lost, and not deleted by someone: more may be lost, so all is sent again.
                    self._runs.set_cursor(0)
                    raise
                if error.error_code not in REFUSALS or not self._runs.is_here():
                    raise
                update = self._updates.pop(number, None)
                if update is not None:
                    self._note(f"tracking: {update.name} is left out: {reason(error)}")

        return guarded

    def _create(self, update: RunUpdate) -> list[Job]:
        return [] if update.number in self._runs else [lambda: self._runs.create(update)]

    def _fill(self, update: RunUpdate) -> list[Job]:
        def log() -> None:
            with self._writing:
                for batch in _batches(update):
                    self._log_batch(update, batch)

        return [log, *self._upload(update)] if any(_batches(update)) else self._upload(update)

    def _log_batch(self, update: RunUpdate, batch: Batch) -> None:
        run_id, entities = self._runs.id_of(update.number), self._mlflow.entities
        kinds = {"metrics": entities.Metric, "params": entities.Param, "tags": entities.RunTag}
        made = {kind: [kinds[kind](*one) for one in rows] for kind, rows in batch.items() if rows}
        try:
            self._client.log_batch(run_id, **made)
        except self._mlflow.MlflowException as error:
            if error.error_code not in REFUSALS or len(made) == 1:
                raise
            # One parameter that the store does not take must not cost the metrics.
            refused = {kind: self._refusal(run_id, kind, rows) for kind, rows in made.items()}
            if all(refused.values()):
                raise
            for kind in filter(refused.get, refused):
                self._note(f"tracking: {update.name} lacks its {kind}: {reason(error)}")

    def _refusal(self, run_id: str, kind: str, rows: list[Any]) -> bool:
        try:
            self._client.log_batch(run_id, **{kind: rows})
        except self._mlflow.MlflowException as error:
            if error.error_code not in REFUSALS:
                raise
            return True
        return False

    def _upload(self, update: RunUpdate) -> list[Job]:
        files = self._files_of(update)
        if not files:
            return []
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        # Not by the client, which asks the server for each run's place again.
        place = self._runs.artifact_uri(update.number)
        try:
            repository = get_artifact_repository(place, tracking_uri=self._runs.uri)
        except Exception as error:
            self._note(f"tracking: {update.name} has no artifacts: {reason(error)}")
            return []
        root = self._folder / update.name
        return [
            self._upload_job(repository, update, _write(root, name, content), name)
            for name, content in files.items()
        ]

    def _upload_job(self, repository: Any, update: RunUpdate, path: Path, name: str) -> Job:
        place = name.rpartition("/")[0] or None

        def upload() -> None:
            for last_attempt in (False, True):
                try:
                    repository.log_artifact(str(path), place)
                    return
                except Exception as error:
                    # Raises when the store is away. Where it answers, only the place is bad.
                    self._client.get_run(self._runs.id_of(update.number))
                    if last_attempt:
                        self._note(f"tracking: {update.name} has no artifacts: {reason(error)}")

        return upload

    def _files_of(self, update: RunUpdate) -> dict[str, str | bytes]:
        files: dict[str, str | bytes] = {**update.files}
        if update.ended is not None and self._artifacts_of is not None:
            try:
                files |= self._artifacts_of(update.ended)
            except Exception as error:
                # Not the store's fault, so that trying again would not help.
                self._note(f"tracking: {update.name} lacks artifacts: {reason(error)}")
        return files

    def _close(self, update: RunUpdate) -> list[Job]:
        status, end_time = update.status, update.end_time

        def close() -> None:
            run_id = self._runs.id_of(update.number)
            if status == "RUNNING":
                self._client.update_run(run_id, status=status)
            else:
                self._client.set_terminated(run_id, status, end_time)

        return [] if status is None else [close]


def _write(root: Path, name: str, content: str | bytes) -> Path:
    data = content if isinstance(content, bytes) else redact(content).encode("utf-8", "replace")
    path = root / name
    assert path.resolve().is_relative_to(root.resolve()), name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


# --- batches ----------------------------------------------------------------------------------


def _batches(update: RunUpdate) -> Iterator[Batch]:
    """An update in batches that one request may hold: 1000 entities in all."""
    params, tags = list(_portions(update.params)), list(_portions(update.tags))
    room = MAX_METRICS - 2 * MAX_PAIRS
    points = [update.metrics[at : at + room] for at in range(0, len(update.metrics), room)]
    for index in range(max(len(params), len(tags), len(points))):
        portions = {"metrics": points, "params": params, "tags": tags}
        yield {kind: rows[index] for kind, rows in portions.items() if index < len(rows)}


def _portions(pairs: Mapping[str, str]) -> Iterator[list[tuple[Any, ...]]]:
    """Parameters or tags in portions that one request may hold, by number and by length."""
    portion: list[tuple[Any, ...]] = []
    length = 0
    for name, text in pairs.items():
        if portion and (len(portion) == MAX_PAIRS or length + len(text) > MAX_PAIR_CHARACTERS):
            yield portion
            portion, length = [], 0
        portion.append((name, text))
        length += len(text)
    if portion:
        yield portion
