"""Follows the file of a ledger and sends a store what it lacks, step by step."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from magtkd.errors import StorageError, SweepError
from magtkd.store.locks import take_lock
from tune.ledger.file import read_events, tail_events
from tune.tracking.addresses import redact
from tune.tracking.projection import Projection
from tune.tracking.runs import SweepRuns
from tune.tracking.sender import ArtifactsOf, Sender

__all__ = ["UPLOADS", "Follower", "num_events_after"]

CHUNK_BYTES = 1 << 18
UPLOADS = "uploads"
"""Folder beside the ledger, for files on their way to the store."""


def num_events_after(ledger_path: Path, offset: int) -> int:
    """Events of a ledger from a byte on; a torn last line is none."""
    try:
        with ledger_path.open("rb") as file:
            file.seek(offset)
            return sum(line.endswith(b"\n") for line in file)
    except OSError:
        return 0


class Follower:
    """Sends a ledger to a store from where the store says that it is.

    What waits is in the ledger: the memory that this takes does not grow while the store is away.
    """

    def __init__(
        self,
        ledger_path: str | Path,
        tracking_uri: str,
        artifacts_of: ArtifactsOf | None,
        say: Callable[[str], None],
    ) -> None:
        self._path, self._uri = Path(ledger_path), tracking_uri
        self._say_to, self._said, self._saying = say, set[str](), threading.Lock()
        self._sender = Sender(artifacts_of, self._say, self._path.parent / UPLOADS)
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
            Exception: whatever MLflow raises when its store is away; the next step goes on.
        """
        try:
            if self._runs is None and not self._connect():
                return False
            assert self._runs is not None
            more = bool(self._projection.updates) or self._read()
            self._sender.send(self._runs, self._projection.updates)
            self._runs.set_cursor(self._offset)
        except Exception:
            # A request may have been heard though its answer was lost: look again what is there.
            self._runs, self._is_sure = None, False
            raise
        self._sent = self._offset
        if not more and not self._is_sure:
            # It may even have been heard after that look, and have made a run twice.
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

    def _say(self, message: str) -> None:
        with self._saying:
            is_new = message not in self._said
            self._said.add(message)
        if is_new:
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
        runs = SweepRuns(self._uri, opened, self._path.parent / "mlflow")
        # Another one than we know of: the store was told more than we heard of, or has lost some.
        if runs.cursor != self._sent:
            self._go_to(runs.cursor)
        self._runs = runs
        return True

    def _go_to(self, cursor: int) -> None:
        """Fold what the store has been told before, and forget the rest."""
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
