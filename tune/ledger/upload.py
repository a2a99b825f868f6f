"""The thread that copies a ledger to the object store while it grows."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

from magtkd.errors import ResumableError, StorageLostError
from tune.ledger.owner import BEAT_SECONDS, OwnerFile
from tune.ledger.remote import RemoteLedger

__all__ = ["Uploader"]

BATCH_SECONDS = 1.0
"""About how often what was appended is uploaded."""


class Uploader:
    """Uploads a ledger's bytes in batches, and shows that its driver is alive.

    Args:
        remote: the ledger in the store, whose series has begun.
        owner: the owner file, which this driver has taken.
        file: descriptor of the local ledger, of which this makes its own.
        as_one: `Files.as_one` of the files that these use, which are this thread's alone.
    """

    def __init__(
        self,
        remote: RemoteLedger,
        owner: OwnerFile,
        *,
        file: int,
        as_one: Callable[[str, Callable[[], None]], None],
    ) -> None:
        self._remote, self._owner, self._as_one = remote, owner, as_one
        self._file, self._size, self._done = os.dup(file), 0, 0  # the ledger may be closed first
        self._changed = threading.Condition()
        self._is_urgent = self._is_closing = False
        self._deadline: float | None = None
        self._error: ResumableError | None = None
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        self._thread.start()

    def grown(self, size: int) -> None:
        """The ledger has more bytes.

        Raises:
            ResumableError: nothing can be uploaded any more.
        """
        with self._changed:
            self._size = size
            self._changed.notify_all()
        self.check()

    def check(self) -> None:
        """Raise what ended the uploads.

        Raises:
            ResumableError: the store is away, or another driver has taken the sweep over.
        """
        if self._error is not None:
            raise self._error

    def hurry(self, seconds: float) -> None:
        """From now on, wait for the store no longer than that."""
        self._deadline = time.monotonic() + seconds

    def flush(self) -> None:
        """Wait until all of the ledger is in the store.

        Raises:
            ResumableError: it cannot be brought there.
        """
        with self._changed:
            self._is_urgent = True
            self._changed.notify_all()
            # Short waits, so that a signal's handler runs.
            while self._done < self._size and self._error is None:
                if self._deadline is not None and time.monotonic() > self._deadline:
                    raise StorageLostError(
                        f"ledger {self._remote.place}: the last {self._size - self._done} bytes "
                        "were not uploaded in time",
                        "continue from this working folder, which has them",
                    )
                self._changed.wait(0.2)
        self.check()

    def close(self) -> None:
        """Upload what is left, and end the thread.

        Raises:
            ResumableError: as for `flush`.
        """
        try:
            if self._error is None:
                self.flush()
        finally:
            with self._changed:
                self._is_closing = True
                self._changed.notify_all()
            self._thread.join(2 * BEAT_SECONDS)  # it may be in the middle of a sign of life

    def _run(self) -> None:
        try:
            while self._wait():
                self._as_one(f"write the ledger {self._remote.place}", self._step)
        except ResumableError as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()
        except Exception as error:  # ours; it must not leave the driver waiting
            with self._changed:
                self._error = ResumableError(f"ledger {self._remote.place}: {error!r}")
                self._changed.notify_all()
        finally:
            os.close(self._file)

    def _wait(self) -> bool:
        """Wait for the next batch or sign of life; whether there is to be one."""
        with self._changed:
            until = time.monotonic() + BATCH_SECONDS
            latest = time.monotonic() + BEAT_SECONDS
            while not self._is_closing and (now := time.monotonic()) < latest:
                is_behind = self._done < self._size
                if is_behind and (self._is_urgent or now >= until):
                    break
                self._changed.wait(max(0.0, (until if is_behind else latest) - now))
            return not self._is_closing

    def _step(self) -> None:
        self._owner.check()
        size = self._size
        if self._done < size:
            is_first = self._done == 0
            self._remote.write(self._read(self._done, size))
            if is_first:
                self._remote.remove_others()
            self._remote.merge(self._read)
        with self._changed:
            self._done = size
            self._is_urgent &= self._done < self._size
            self._changed.notify_all()

    def _read(self, first: int, end: int) -> bytes:
        content = bytearray()
        while len(content) < end - first:
            block = os.pread(self._file, end - first - len(content), first + len(content))
            if not block:
                raise StorageLostError(f"ledger {self._remote.place}: its local copy was cut")
            content += block
        return bytes(content)
