"""The ledger's file: one event a line, appended by one writer.

A line counts once its newline is written: what a killed driver left after the last newline is
ignored by readers and cut off by the next writer.

Where the storage is an object store, the file is the working copy: it is uploaded as it grows, and
brought up to date with the store before it is read or continued.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import msgspec

from magtkd.errors import ResumableError, StorageError, StorageLostError, SweepError
from magtkd.store import Files, is_locked, is_still, patiently, take_lock
from tune.ledger.events import (
    FORMAT,
    Event,
    SweepOpened,
    SweepResumed,
    decode_event,
    encode_event,
)
from tune.ledger.layout import SweepLayout
from tune.ledger.owner import OwnerFile
from tune.ledger.remote import RemoteLedger, Series
from tune.ledger.state import SweepState
from tune.ledger.upload import Uploader

__all__ = [
    "Ledger",
    "first_event",
    "fold",
    "pull_ledger",
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


# --- the copy in an object store --------------------------------------------------------------


def pull_ledger(layout: SweepLayout) -> None:
    """Bring the working copy up to date with the store, where that is an object store and no driver
    runs here.

    Raises:
        SweepError: both have events that the other lacks, or the store's is damaged.
        StorageLostError: the store does not answer or refuses.
        StorageError: the working copy cannot be written.
    """
    if not layout.remote or is_locked(layout.lock):
        return
    remote = RemoteLedger(layout, Files(layout.remote))
    content = remote.read()
    if not content or (lock := take_lock(layout.lock)) is None:
        return
    try:
        file = _open(layout.ledger)
        try:
            _catch_up(file, content, layout, remote)
        finally:
            os.close(file)
    finally:
        os.close(lock)


def _catch_up(file: int, content: bytes, layout: SweepLayout, remote: RemoteLedger) -> None:
    """Append to the working copy what the store has more. Of the two, the one that begins with the
    other is the ledger."""
    local = os.pread(file, os.fstat(file).st_size, 0)
    local = local[: local.rfind(b"\n") + 1]
    if local.startswith(content):
        return
    if not content.startswith(local):
        pairs = enumerate(zip(local, content, strict=False))
        same = next(place for place, (one, other) in pairs if one != other)
        raise SweepError(
            f"sweep {layout.name!r}: {layout.ledger} and {remote.place} differ after byte {same}: "
            "two drivers continued one sweep; move away the one that is not to count"
        )
    try:
        os.ftruncate(file, len(local))
        _write_all(file, content[len(local) :])
        os.fsync(file)
    except OSError as error:
        raise StorageError(f"{layout.ledger}: cannot write: {error.strerror}") from None


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError as error:
        raise StorageError(f"{path}: cannot write: {error.strerror}") from None


def _open_folder(path: Path) -> int:
    try:
        path.mkdir(exist_ok=True)
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise StorageError(f"{path}: cannot write: {error.strerror}") from None


def _write_all(file: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(file, rest) :]


# --- writing ----------------------------------------------------------------------------------


class Ledger:
    """The one writer of a ledger; events are on their way to the disk when `append` returns.

    The whole sweep folder is locked. A process that dies, however it dies, gives the lock back. In
    an object store an owner file does as much of that as can be done there.

    Raises:
        SweepError: another process writes this ledger, or its copies differ.
        StorageError: the file cannot be written.
        StorageLostError: an object store does not answer or refuses.
    """

    def __init__(self, layout: SweepLayout) -> None:
        self.layout = layout
        self.path = layout.ledger
        lock = take_lock(layout.lock)
        if lock is None:
            raise _is_running(layout, layout.lock.read_text(errors="replace"))
        self._lock, self._file, self._artifacts = lock, -1, -1
        self._owner: OwnerFile | None = None
        self._uploader: Uploader | None = None
        try:
            self._file = _open(self.path)
            if layout.remote:
                self._take_remote()
            else:
                self._artifacts = _open_folder(layout.artifacts)
            self._size, self._last_time = self._cut_torn_tail()
            self._synced = time.monotonic()
            self._synced_size = self._size
            if self._uploader is not None:
                self._uploader.grown(self._size)
        except BaseException:
            self._close_all()
            raise

    def _take_remote(self) -> None:
        """Become the owner of the sweep in an object store, take over what the store has more, and
        begin to upload."""
        files = Files(self.layout.remote)  # the uploader's alone, once it runs
        owner, remote = OwnerFile(self.layout, files), RemoteLedger(self.layout, files)
        other = owner.take()
        if other is not None:
            raise _is_running(self.layout, other.process)
        try:
            last = remote.last_series()
            _catch_up(self._file, remote.read(), self.layout, remote)
        except BaseException:
            owner.release()
            raise
        remote.begin(Series(last.number + 1 if last else 1, owner.driver))
        self._owner = owner
        self._uploader = Uploader(remote, owner, file=self._file, as_one=files.as_one)

    @property
    def num_bytes(self) -> int:
        """Size of the file, which is zero before the first event."""
        return self._size

    def append(self, event: EventT) -> EventT:
        """Add one event, and return it as a reader will see it, with its time.

        Raises:
            StorageLostError: the disk is full or gone, or the store does not answer; the ledger is
                as it was before.
            OwnerLostError: another driver has taken the sweep over.
        """
        if self._uploader is not None:
            self._uploader.check()
        now = max(self._last_time, time.time_ns() // 1_000_000)
        line = encode_event(msgspec.structs.replace(event, time=now))
        self._write(line)
        self._size += len(line)
        self._last_time = now
        if self._is_due():
            self._sync()
        if self._uploader is not None:
            self._uploader.grown(self._size)
        seen = _decode(line, str(self.path))
        assert isinstance(seen, type(event))
        return seen

    def flush(self) -> None:
        """Wait until an object store has all events; nothing to wait for on a disk, which has them
        when `append` returns.

        Raises:
            StorageLostError, OwnerLostError: as for `append`.
        """
        if self._uploader is not None:
            self._uploader.flush()

    def hurry(self, seconds: float) -> None:
        """From now on, wait for an object store no longer than that."""
        if self._uploader is not None:
            self._uploader.hurry(seconds)

    def check(self) -> None:
        """Check that the file, the lock and the folder of artifacts are where they were: a folder
        may be deleted, or another disk be mounted over it. Syncs events that wait for it: the next
        one may be an hour away.

        Raises:
            StorageLostError: they are gone, or the store does not answer.
            OwnerLostError: another driver has taken the sweep over.
        """
        if self._size > self._synced_size and self._is_due():
            self._sync()
        else:
            self._look()

    def _look(self) -> None:
        for descriptor, path in (
            (self._file, self.path),
            (self._lock, self.layout.lock),
            (self._artifacts, self.layout.artifacts),
        ):
            if descriptor < 0:  # an object store's
                continue
            look = functools.partial(is_still, descriptor, path)
            try:
                is_there = patiently(look, str(self.layout.root), f"look for {path}")
            except OSError as error:
                raise self._failed(error) from None
            if not is_there:
                raise StorageLostError(
                    f"{path}: is not what this sweep opened any more: the storage was removed, "
                    "unmounted or replaced",
                    "put it back",
                )
        if self._uploader is not None:
            self._uploader.check()

    def close(self) -> None:
        """Sync the file to the disk, upload what is left, and give the lock back; more than once
        does nothing.

        Raises:
            StorageLostError, OwnerLostError: as for `append`.
        """
        if self._file < 0:
            return
        try:
            self._sync()
            if self._uploader is not None and self._owner is not None:
                self._uploader.close()
                self._owner.release()
        finally:
            self._close_all()

    def _close_all(self) -> None:
        for descriptor in (self._file, self._artifacts, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except ResumableError:
            if error is None:
                raise

    def _write(self, line: bytes) -> None:
        assert self._file >= 0, "the ledger is closed"

        def write() -> None:
            try:
                _write_all(self._file, line)
            except OSError:
                # Half a line must not stay: the next event would turn it into a torn one in the
                # middle.
                os.ftruncate(self._file, self._size)
                raise

        try:
            patiently(write, str(self.layout.root), f"write {self.path}")
        except OSError as error:
            raise self._failed(error) from None

    def _sync(self) -> None:
        try:
            os.fsync(self._file)
        except OSError as error:
            raise self._failed(error) from None
        self._look()
        self._synced, self._synced_size = time.monotonic(), self._size

    def _is_due(self) -> bool:
        return time.monotonic() - self._synced >= SYNC_SECONDS

    def _failed(self, error: OSError) -> StorageLostError:
        return StorageLostError(
            f"{self.path}: cannot write: {error.strerror}", "make room, then continue with --resume"
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


def _is_running(layout: SweepLayout, process: str) -> SweepError:
    running = f"{process or 'another process'} is running it; wait for its end"
    if layout.part:
        return SweepError(f"sweep {layout.name!r}, {layout.part}: {running}")
    return SweepError(f"sweep {layout.name!r}: {running}, or give this sweep another name")
