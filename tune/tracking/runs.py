"""The runs of a sweep in an MLflow store: finding and making them, and the position in the ledger.

experiment                  named like the sweep, and found by its tag of the sweep
└── run NAME                the sweep: how it searches as parameters, `sweep.yaml`
    ├── run trial-0007      values as parameters, reports as metrics, stage keys as tags
    └── run confirm         a confirmation: its trials as parameters, means as metrics
        └── run confirm/trial-0007/seed-3
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tune.ledger import SweepOpened, fold
from tune.redact import redact
from tune.tracking.address import is_database
from tune.tracking.moved import move_artifacts
from tune.tracking.notes import sweep_headline
from tune.tracking.projection import NOTE_TAG, RunUpdate, own_run_name
from tune.tracking.refusals import NotMlflowError, in_our_words
from tune.tracking.store import SWEEP_TAG, find_experiment, import_mlflow, open_client
from tune.tracking.views import is_ours

__all__ = ["CURSOR_TAG", "SweepRuns", "remove_runs"]

TRIAL_TAG, CURSOR_TAG = "magtkd.trial", "magtkd.cursor"
VIEWS_TAG = "magtkd.views"
PARENT_TAG = "mlflow.parentRunId"


class SweepRuns:
    """The runs of one sweep in one tracking store; every call may raise when the store is away.

    Args:
        uri: the store's address.
        opened: the sweep.
        artifact_root: where a database has the sweep's artifacts.
        note: called with one line where the experiment has another name than the sweep.
    """

    def __init__(
        self, uri: str, opened: SweepOpened, artifact_root: Path, note: Callable[[str], None]
    ) -> None:
        self.uri, self._note = uri, note
        self.client, self._view = open_client(uri), import_mlflow().entities.ViewType.ALL
        self._sweep_id, self._name = opened.sweep_id, opened.name
        self._own_name = own_run_name(opened.name, opened.race)
        # The runs of a confirmation are in its sweep's experiment, below its sweep's run.
        self._home_id = opened.sweep_id if opened.race is None else opened.race.sweep_id
        # A database has no place for artifacts; a server has its own.
        self._artifact_root = artifact_root.resolve() if is_database(uri) else None
        self._experiment_id = self._find_experiment(opened)
        self._parent = None if opened.race is None else self._find_parent()
        self._ids: dict[int | None, str] = {}
        self._artifact_uris: dict[int | None, str] = {}
        self._views = ""
        self._cursor = self._find_runs(opened)

    @property
    def cursor(self) -> int:
        """Up to which byte of the ledger this store has it, as noted in the store."""
        return self._cursor

    def set_cursor(self, offset: int) -> None:
        """Note in the store that it has the ledger up to this byte."""
        if offset != self._cursor:
            self.client.set_tag(self._ids[None], CURSOR_TAG, str(offset))
            self._cursor = offset

    def set_views(self, views: Mapping[str, str]) -> None:
        """Write views to the experiment, once: one that a person has changed or deleted since
        stays as it is."""
        if not views:
            return
        mark = f"{zlib.crc32(json.dumps(views, sort_keys=True).encode()):08x}"
        if self._views == mark:
            return
        there = self.client.get_experiment(self._experiment_id).tags
        for name, value in views.items():
            if name not in there or (there[name] != value and is_ours(there[name])):
                self.client.set_experiment_tag(self._experiment_id, name, value)
        self.client.set_tag(self._ids[None], VIEWS_TAG, mark)
        self._views = mark

    @property
    def experiment_id(self) -> str:
        """The experiment that has the runs."""
        return self._experiment_id

    def __contains__(self, number: int | None) -> bool:
        return number in self._ids

    def id_of(self, number: int | None) -> str:
        """The run of a trial, or of the sweep."""
        return self._ids[number]

    def artifact_uri(self, number: int | None) -> str:
        """Where its artifacts go."""
        return self._artifact_uris[number]

    def is_here(self) -> bool:
        """Whether the sweep's own run is still there; else the store is not the one it was."""
        info = self.client.get_run(self._ids[None]).info
        return bool(info.lifecycle_stage == "active")

    def _find_experiment(self, opened: SweepOpened) -> str:
        found = find_experiment(self.client, self._home_id)
        if found is None:
            return self._make_experiment(opened)
        experiment_id = str(found.experiment_id)
        if found.lifecycle_stage == "deleted":
            self.client.restore_experiment(experiment_id)
        if SWEEP_TAG not in found.tags:
            self.client.set_experiment_tag(experiment_id, SWEEP_TAG, self._home_id)
        if self._artifact_root is not None:
            before = str(found.artifact_location)
            move_artifacts(self.uri, experiment_id, before, self._artifact_root)
        return experiment_id

    def _make_experiment(self, opened: SweepOpened) -> str:
        """An experiment of this sweep alone. Names are unique, also among deleted ones: one that
        another sweep has is not taken over."""
        tags = {
            SWEEP_TAG: self._home_id,
            "mlflow.experimentKind": "custom_model_development",
            NOTE_TAG: redact(sweep_headline(fold([opened]))),
        }
        found = self.client.get_experiment_by_name(self._name)
        if found is not None and found.tags.get(SWEEP_TAG) == self._home_id:
            return str(found.experiment_id)  # an earlier request has arrived after all
        is_taken = found is not None
        name = f"{self._name}-{self._home_id[:8]}" if is_taken else self._name
        location = None if self._artifact_root is None else self._artifact_root.as_uri()
        made = str(self.client.create_experiment(name, location, tags))
        if not made:
            raise NotMlflowError("it made an experiment without an id")
        if is_taken:
            self._note(
                f"tracking: another sweep's experiment has the name {self._name!r}; this sweep's "
                f"is {name!r}"
            )
        return made

    def _find_runs(self, opened: SweepOpened) -> int:
        """Learn the runs by trial; the cursor, which is zero where all must be sent again."""
        found: dict[int | None, list[Any]] = {}
        for run in self._search(self._sweep_id):
            number = run.data.tags.get(TRIAL_TAG)
            found.setdefault(None if number is None else int(number), []).append(run)
        parents = [run for run in found.pop(None, []) if run.info.lifecycle_stage == "active"]
        for run in parents[:1]:
            self._know(None, run)
            self._views = run.data.tags.get(VIEWS_TAG, "")
            if self._parent is not None and run.data.tags.get(PARENT_TAG) != self._parent:
                self.client.set_tag(run.info.run_id, PARENT_TAG, self._parent)
        if not parents:
            self.create(RunUpdate(None, self._own_name, opened.time))
        extra = parents[1:]
        for number, runs in found.items():
            active = [run for run in runs if run.info.lifecycle_stage == "active"]
            # Someone deleted it, and not the sweep: it stays deleted.
            if parents and not active:
                active = runs[:1]
            for run in active[:1]:
                self._know(number, run)
                self._adopt(run)
            extra += active[1:]
        if extra:
            self._forget(extra)
            return 0
        return int(parents[0].data.tags.get(CURSOR_TAG, "0")) if parents else 0

    def _find_parent(self) -> str | None:
        """The run of a confirmation's sweep; None where MLflow does not have it yet."""
        own = (
            run
            for run in self._search(self._home_id)
            if TRIAL_TAG not in run.data.tags and run.info.lifecycle_stage == "active"
        )
        return next((str(run.info.run_id) for run in own), None)

    def _search(self, sweep_id: str) -> list[Any]:
        """All runs of a sweep, in the same order for everyone."""
        query, token, runs = f"tags.`{SWEEP_TAG}` = '{sweep_id}'", None, []
        while True:
            page = self.client.search_runs(
                [self._experiment_id], query, run_view_type=self._view, page_token=token
            )
            runs += page
            token = page.token
            if not token:
                return sorted(runs, key=lambda run: str(run.info.run_id))

    def _adopt(self, run: Any) -> None:
        if run.data.tags.get(PARENT_TAG) != self._ids[None]:
            self.client.set_tag(run.info.run_id, PARENT_TAG, self._ids[None])

    def _forget(self, extra: list[Any]) -> None:
        """Delete runs that were made twice, where the answer to the first request was lost.

        The one that goes may be the one that was filled: all is sent again, and noted to be
        before anything goes.
        """
        self.client.set_tag(self._ids[None], CURSOR_TAG, "0")
        for run in extra:
            self.client.delete_run(run.info.run_id)

    def _know(self, number: int | None, run: Any) -> None:
        self._ids[number] = str(run.info.run_id)
        self._artifact_uris[number] = str(run.info.artifact_uri)

    def create(self, update: RunUpdate) -> None:
        """Make the run that an update is for."""
        tags = {
            SWEEP_TAG: self._sweep_id,
            "mlflow.source.name": "magtkd",
            "mlflow.source.type": "LOCAL",
        }
        if update.number is not None:
            tags |= {TRIAL_TAG: str(update.number), PARENT_TAG: self._ids[None]}
        elif self._parent is not None:
            tags[PARENT_TAG] = self._parent
        run = self.client.create_run(
            self._experiment_id, start_time=update.start_time, tags=tags, run_name=update.name
        )
        self._know(update.number, run)


def remove_runs(uri: str, sweep_id: str) -> bool:
    """Delete a sweep's experiment with all its runs, confirmations included, as MLflow's own page
    does: `mlflow gc` removes it for good. Whether there was one.

    Raises:
        TrackingError, StorageLostError: the store refuses, or is away.
    """
    try:
        client = open_client(uri)
        found = find_experiment(client, sweep_id)
        if found is not None and found.lifecycle_stage != "deleted":
            client.delete_experiment(found.experiment_id)
    except Exception as error:
        raise in_our_words(uri, error) from None
    return found is not None
