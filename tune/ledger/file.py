"""The ledger's file: one event a line, appended by one writer.

A line counts once its newline is written: what a killed driver left after the last newline is
ignored by readers and cut off by the next writer.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import msgspec

from magtkd.errors import StorageError, SweepError
from magtkd.store import take_lock
from tune.ledger.events import (
    FORMAT,
    Event,
    SweepOpened,
    SweepResumed,
    decode_event,
    encode_event,
)
from tune.ledger.layout import SweepLayout
from tune.ledger.state import SweepState

__all__ = [
    "Ledger",
    "first_event",
    "fold",
    "read_events",
    "tail_events",
]

EventT = TypeVar("EventT", bound=Event)

SYNC_SECONDS = 1.0


# --- reading ----------------------------------------------------------------------------------


def _decode(line: bytes, place: str) -> Event:
    try:
        event = decode_event(line)
    except (ValueError, RecursionError) as error:
        shown = line[:60].decode("utf-8", "replace").rstrip()
        raise SweepError(
            f"{place}: {shown!r} is not an event: {error}; restore the ledger from a copy"
        ) from None
    if isinstance(event, SweepOpened | SweepResumed) and event.format > FORMAT:
        raise SweepError(
            f"{place}: the ledger has format {event.format}, and this version of magtkd reads "
            f"formats up to {FORMAT}; install the version that wrote it, or a later one"
        )
    return event


def read_events(path: str | Path) -> Iterator[Event]:
    """The events of a ledger in order; a torn last line is ignored.

    Raises:
        SweepError: there is no such file, a line before the last is damaged, or the ledger has a
            later format.
    """
    path = Path(path)
    try:
        file = path.open("rb")
    except OSError as error:
        raise SweepError(f"{path}: cannot read the ledger: {error.strerror}") from None
    with file:
        for number, line in enumerate(file, start=1):
            if line.endswith(b"\n"):
                yield _decode(line, f"{path}: line {number}")


def first_event(path: str | Path) -> SweepOpened | None:
    """The event that opened a ledger's sweep; None where it has none yet.

    Raises:
        SweepError: as for `read_events`, or the first event is another.
    """
    event = next(read_events(path), None)
    if event is not None and not isinstance(event, SweepOpened):
        raise SweepError(
            f"{path}: does not begin with the opening of a sweep; restore it from a copy"
        )
    return event


def tail_events(path: str | Path, offset: int, max_bytes: int) -> tuple[list[Event], int]:
    """The events from a byte offset on, in about `max_bytes`, and the offset after them.

    Raises:
        SweepError: as for `read_events`.
    """
    try:
        with Path(path).open("rb") as file:
            file.seek(offset)
            block = file.read(max_bytes)
            if b"\n" not in block:
                block += file.readline()
    except OSError as error:
        raise SweepError(f"{path}: cannot read the ledger: {error.strerror}") from None
    whole = block[: block.rfind(b"\n") + 1]
    place = f"{path}: after byte {offset}"
    return [_decode(line, place) for line in whole.splitlines()], offset + len(whole)


def fold(events: Iterable[Event]) -> SweepState:
    """The state after some events.

    Raises:
        SweepError: an event does not fit those before it.
    """
    state = SweepState()
    for event in events:
        state.apply(event)
    return state


# --- writing ----------------------------------------------------------------------------------


class Ledger:
    """The one writer of a ledger; events are on their way to the disk when `append` returns.

    The whole sweep folder is locked. A process that dies, however it dies, gives the lock back.

    Raises:
        SweepError: another process writes this ledger.
        StorageError: the file cannot be written.
    """

    def __init__(self, layout: SweepLayout) -> None:
        self.layout = layout
        self.path = layout.ledger
        lock = take_lock(layout.lock)
        if lock is None:
            holder = layout.lock.read_text(errors="replace") or "another process"
            raise SweepError(
                f"sweep {layout.name!r}: {holder} is running it; "
                "wait for its end, or give this sweep another name"
            )
        self._lock = lock
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            os.close(lock)
            raise StorageError(f"{self.path}: cannot write: {error.strerror}") from None
        self._size, self._last_time = self._cut_torn_tail()
        self._synced = time.monotonic()

    @property
    def num_bytes(self) -> int:
        """Size of the file, which is zero before the first event."""
        return self._size

    def append(self, event: EventT) -> EventT:
        """Add one event, and return it as a reader will see it, with its time.

        Raises:
            StorageError: the disk is full or gone; the ledger is as it was before.
        """
        now = max(self._last_time, time.time_ns() // 1_000_000)
        line = encode_event(msgspec.structs.replace(event, time=now))
        self._write(line)
        self._size += len(line)
        self._last_time = now
        if time.monotonic() - self._synced >= SYNC_SECONDS:
            self._sync()
        seen = _decode(line, str(self.path))
        assert isinstance(seen, type(event))
        return seen

    def close(self) -> None:
        """Sync the file to the disk and give the lock back; more than once does nothing."""
        if self._file < 0:
            return
        try:
            self._sync()
        finally:
            os.close(self._file)
            os.close(self._lock)
            self._file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _write(self, line: bytes) -> None:
        assert self._file >= 0, "the ledger is closed"
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError as error:
            # Half a line must not stay: the next event would turn it into a torn one in the middle.
            os.ftruncate(self._file, self._size)
            raise self._failed(error) from None

    def _sync(self) -> None:
        try:
            os.fsync(self._file)
        except OSError as error:
            raise self._failed(error) from None
        self._synced = time.monotonic()

    def _failed(self, error: OSError) -> StorageError:
        return StorageError(
            f"{self.path}: cannot write: {error.strerror}; make room, then continue with --resume"
        )

    def _cut_torn_tail(self) -> tuple[int, int]:
        """Size and time of what is whole, after cutting off what is not."""
        end = os.fstat(self._file).st_size
        start, tail = end, b""
        # The last whole line is between the last two newlines, or starts the file.
        while start > 0 and tail.count(b"\n") < 2:
            start = max(0, start - 65536)
            tail = os.pread(self._file, end - start, start)
        size = start + tail.rfind(b"\n") + 1
        if size < end:
            os.ftruncate(self._file, size)
        if size == 0:
            return 0, 0
        last = tail[: size - start].splitlines()[-1]
        return size, _decode(last, f"{self.path}: last line").time
