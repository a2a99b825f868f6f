"""Follows the file of a ledger and sends a store what it lacks, step by step."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from magtkd.errors import StorageLostError, SweepError
from magtkd.store import take_lock
from tune.ledger import SweepLayout, first_event, tail_events
from tune.redact import redact
from tune.tracking.projection import Projection
from tune.tracking.runs import SweepRuns
from tune.tracking.sender import ArtifactsOf, Sender
from tune.tracking.views import view_links, views_of

__all__ = ["Follower", "num_events_after"]

CHUNK_BYTES = 1 << 18


def num_events_after(ledger_path: Path, offset: int) -> int:
    """Events of a ledger from a byte on; a torn last line is none."""
    try:
        with ledger_path.open("rb") as file:
            file.seek(offset)
            return sum(line.endswith(b"\n") for line in file)
    except OSError:
        return 0


class Follower:
    """Sends a ledger to a tracking store, from the position that the store itself has noted.

    What waits is in the ledger: the memory that this takes does not grow while the store is away.

    Args:
        layout: where the sweep is.
        tracking_uri: the store's address.
        artifacts_of: the files of an ended trial, name to content.
        note: called with one line on what a person should know, once for each.
    """

    def __init__(
        self,
        layout: SweepLayout,
        tracking_uri: str,
        artifacts_of: ArtifactsOf | None,
        note: Callable[[str], None],
    ) -> None:
        self._layout, self._path, self._uri = layout, layout.ledger, tracking_uri
        self._on_note, self._noted, self._noting = note, set[str](), threading.Lock()
        self._sender = Sender(artifacts_of, self._note, layout.uploads)
        self._projection = Projection()
        self._runs: SweepRuns | None = None
        self._is_sure = True
        self._offset = self._sent = 0
        self._lock: int | None = None

    @property
    def sent(self) -> int:
        """Up to which byte the ledger was sent."""
        return self._sent

    @property
    def seconds(self) -> float:
        """Seconds of a core that the calling thread and those of requests have taken so far."""
        return time.thread_time() + self._sender.seconds

    def step(self) -> bool:
        """Send about one chunk; whether there may be more.

        Raises:
            SweepError: the ledger is damaged, or another process sends it.
            Exception: whatever MLflow raises when its store is away; the next step retries.
        """
        try:
            if self._runs is None and not self._connect():
                return False
            assert self._runs is not None
            more = bool(self._projection.updates) or self._read()
            self._sender.send(self._runs, self._projection.updates)
            self._runs.set_views(views_of(self._projection.state))
            self._runs.set_cursor(self._offset)
        except Exception:
            # A request may have arrived though its answer was lost: look again what is there.
            self._runs, self._is_sure = None, False
            raise
        self._sent = self._offset
        if not more and not self._is_sure:
            # It may even have arrived after that look, and have made a run twice.
            self._runs, self._is_sure = None, True
            return True
        return more

    def num_left(self) -> int:
        """Events that have not been sent."""
        return num_events_after(self._path, self._sent)

    def close(self) -> None:
        """Let another process send this ledger."""
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

    def _note(self, message: str) -> None:
        with self._noting:
            is_new = message not in self._noted
            self._noted.add(message)
        if is_new:
            self._on_note(message)

    def _connect(self) -> bool:
        opened = first_event(self._path)
        if opened is None:
            return False
        if self._lock is None:
            self._lock = take_lock(self._layout.tracking_lock(self._uri))
            if self._lock is None:
                raise StorageLostError(
                    f"sweep {opened.name!r}: another process is sending it to "
                    f"{redact(self._uri)}; wait for its end"
                )
        runs = SweepRuns(self._uri, opened, self._layout.mlflow_artifacts, self._note)
        # Another position than ours: the store got more than it confirmed, or has lost some.
        if runs.cursor != self._sent:
            self._go_to(runs.cursor)
        self._projection.links = view_links(opened.race, runs.experiment_id)
        self._runs = runs
        return True

    def _go_to(self, cursor: int) -> None:
        """Fold what the store has already, and forget the rest."""
        self._projection, self._offset, self._sent = Projection(), 0, 0
        if cursor > self._path.stat().st_size:
            return
        before = -1
        while before < self._offset < cursor:
            before = self._offset
            self._read(cursor)
            self._projection.updates.clear()
        self._sent = self._offset

    def _read(self, end: int | None = None) -> bool:
        """Fold the next chunk, up to `end` at most; whether there may be more."""
        start = self._offset
        size = CHUNK_BYTES if end is None else min(CHUNK_BYTES, end - start)
        events, self._offset = tail_events(self._path, start, size)
        for event in events:
            self._projection.apply(event)
        return self._offset - start >= CHUNK_BYTES // 2
