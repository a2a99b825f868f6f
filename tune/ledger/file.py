"""The ledger: one append-only file of JSON lines per sweep.

Each line is one event: an object with `kind`, `time` (integer milliseconds, never decreasing) and
the fields of its kind.

    sweep_opened    sweep_id (unique), name, config (the resolved sweep), versions, fingerprint of
                    the table, tracked (whether MLflow is told)
    sweep_resumed
    trial_suggested trial, values ({dotted name: value})
    trial_stages    trial, stages ({stage: {key, outcome, seconds, saved?}}), outcome one of
                    trained | reused | stopped (fusion of a trial that ended early)
    trial_changed   trial, epoch, values     values that hold from this epoch on, and the whole
                    base, changes            lineage: first values, and fusion's changes since
    trial_report    trial, epoch, metrics    a metric that is not finite is null
    trial_ended     trial, state: completed | stopped | diverged | failed, and where there is one
                    message, dev, epoch (the chosen one), objectives (their values there)
    test_revealed   trial, test
    warning         message              something that a person should know, such as a damaged file
    sweep_closed    reason: finished | interrupted

A line counts once its newline is written: what a killed driver left after the last newline is
ignored by readers and cut off by the next writer.
"""

from __future__ import annotations

import difflib
import json
import math
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from magtkd.errors import StorageError, SweepError
from magtkd.store.locks import take_lock
from tune.ledger.state import Event, SweepState

__all__ = [
    "Ledger",
    "check_unused",
    "open_ledger",
    "read_events",
    "read_sweep",
    "tail_events",
]

FILE_NAME = "ledger.jsonl"
SYNC_SECONDS = 1.0


# --- lines ------------------------------------------------------------------------------------


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def _finite(value: Any) -> Any:
    """The value with null for every float that is not finite, as JSON has no others."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return value


def _encode(event: Event) -> bytes:
    text = json.dumps(_finite(event), allow_nan=False, separators=(",", ":"))
    return text.encode("ascii") + b"\n"


def _decode(line: bytes, place: str) -> Event:
    try:
        event = _DECODER.decode(line.decode("utf-8"))
    except (ValueError, RecursionError):
        event = None
    if (
        isinstance(event, dict)
        and isinstance(event.get("kind"), str)
        and isinstance(event.get("time"), int)
    ):
        return event
    shown = line[:60].decode("utf-8", "replace").rstrip()
    raise SweepError(f"{place}: {shown!r} is not an event; restore the ledger from a copy")


def read_events(path: str | Path) -> Iterator[Event]:
    """The events of a ledger in order; a torn last line is ignored.

    Raises:
        SweepError: there is no such file, or a line before the last is damaged.
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


# --- the writer -------------------------------------------------------------------------------


class Ledger:
    """The one writer of a ledger; events are on their way to the disk when `append` returns.

    The whole sweep folder is locked. A process that dies, however it dies, gives the lock back.

    Raises:
        SweepError: another process writes this ledger.
        StorageError: the file cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        lock = take_lock(self.path.parent / "lock")
        if lock is None:
            holder = (self.path.parent / "lock").read_text(errors="replace") or "another process"
            raise SweepError(
                f"sweep {self.path.parent.name!r}: {holder} is running it; "
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

    def append(self, kind: str, **fields: Any) -> Event:
        """Add one event, and return it as a reader will see it.

        A `sweep_opened` without a `sweep_id` gets a new one.

        Raises:
            StorageError: the disk is full or gone; the ledger is as it was before.
        """
        if kind == "sweep_opened":
            fields.setdefault("sweep_id", uuid.uuid4().hex)
        now = max(self._last_time, time.time_ns() // 1_000_000)
        line = _encode({"kind": kind, "time": now, **fields})
        self._write(line)
        self._size += len(line)
        self._last_time = now
        if time.monotonic() - self._synced >= SYNC_SECONDS:
            self._sync()
        return _decode(line, str(self.path))

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
            f"{self.path}: cannot write: {error.strerror}; make room, then go on with --resume"
        )

    def _cut_torn_tail(self) -> tuple[int, int]:
        """Size and time of what is whole, after cutting off what is not."""
        end = os.fstat(self._file).st_size
        start, tail = end, b""
        # The last whole line lies between the last two newlines, or starts the file.
        while start > 0 and tail.count(b"\n") < 2:
            start = max(0, start - 65536)
            tail = os.pread(self._file, end - start, start)
        size = start + tail.rfind(b"\n") + 1
        if size < end:
            os.ftruncate(self._file, size)
        if size == 0:
            return 0, 0
        last = tail[: size - start].splitlines()[-1]
        return size, _decode(last, f"{self.path}: last line")["time"]


def open_ledger(folder: str | Path, *, resume: bool = False) -> Ledger:
    """The ledger of a sweep's folder (`STORAGE/sweeps/NAME`): a new one, or one to go on with.

    Raises:
        SweepError: a new sweep's name exists already, a sweep to resume does not exist, or another
            process is running it.
        StorageError: the folder cannot be written.
    """
    folder = Path(folder)
    if resume and not (folder / FILE_NAME).is_file():
        raise _unknown(folder)
    ledger = Ledger(folder / FILE_NAME)
    # A driver that died before its first event left a ledger without a sweep.
    if resume and not ledger.num_bytes:
        ledger.close()
        raise _unknown(folder)
    if not resume and ledger.num_bytes:
        ledger.close()
        raise _taken(folder)
    return ledger


def check_unused(folder: str | Path) -> None:
    """Refuse a new sweep whose name exists already, before anything is started for it.

    Raises:
        SweepError: there is a sweep in this folder.
    """
    file = Path(folder) / FILE_NAME
    if file.is_file() and file.stat().st_size:
        raise _taken(file.parent)


def _taken(folder: Path) -> SweepError:
    return SweepError(
        f"sweep {folder.name!r}: exists already in {folder.parent}; "
        f"go on with --resume {folder.name}, or give this one another name"
    )


def read_sweep(folder: str | Path) -> SweepState:
    """The state of the sweep in a folder (`STORAGE/sweeps/NAME`), whether or not it is running.

    Raises:
        SweepError: there is no such sweep, or its ledger is damaged.
    """
    folder = Path(folder)
    if not (folder / FILE_NAME).is_file():
        raise _unknown(folder)
    state = SweepState()
    for event in read_events(folder / FILE_NAME):
        state.apply(event)
    if not state.sweep_id:
        raise _unknown(folder)
    return state


def _unknown(folder: Path) -> SweepError:
    found = folder.parent.glob(f"*/{FILE_NAME}")
    names = sorted(path.parent.name for path in found if path.stat().st_size)
    near = difflib.get_close_matches(folder.name, names, n=3, cutoff=0.4) or names[:5]
    hint = f"there are {', '.join(near)}" if near else "there is none yet"
    if len(near) == 1:
        hint = f"did you mean {near[0]!r}?"
    return SweepError(f"sweep {folder.name!r}: not found in {folder.parent}; {hint}")
