"""Faults of a storage: which pass by themselves, and how long they are waited for.

An object store or a network file system is away at times: connections are reset, it answers 500, or
asks for fewer requests. No trial fails for that. What lasts, such as a right that is missing or a
disk that is full, is not waited for.

pyarrow has tried a request to an object store 31 times before it raises: for 6 seconds, or 100 with
a service that accepts connections and never answers. What is waited here comes after that.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from magtkd.errors import StorageLostError, first_line

__all__ = [
    "PATIENCE_SECONDS",
    "is_passing",
    "patience_of",
    "patiently",
    "reason_of",
    "report_faults_to",
]

T = TypeVar("T")

PATIENCE_SECONDS = 300.0
"""How long a fault that may pass is waited for; `MAGTKD_STORAGE_PATIENCE` sets another number."""
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 15.0

_PASSING = {
    # Of network file systems, whose server is away or was started again.
    errno.ESTALE,
    errno.EIO,
    errno.EREMOTEIO,
    errno.ETIMEDOUT,
    errno.ECONNRESET,
    errno.ECONNREFUSED,
    errno.ECONNABORTED,
    errno.ENOTCONN,
    errno.EPIPE,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.EAGAIN,
}
# Arrow gives no number for an object store's errors, only text. The names are those of the AWS SDK
# (CoreErrors.h, S3Errors.h) and of Google's status codes.
_PASSING_TEXT = re.compile(
    r"AWS Error (NETWORK_CONNECTION|INTERNAL_FAILURE|SERVICE_UNAVAILABLE|SLOW_DOWN|THROTTLING"
    r"|REQUEST_TIMEOUT|REQUEST_EXPIRED|NO_SUCH_UPLOAD)\b"
    r"|HTTP status (-1|408|429|5\d\d)\b"
    r"|Status\((UNAVAILABLE|DEADLINE_EXCEEDED|RESOURCE_EXHAUSTED|INTERNAL|ABORTED)\b"
    r"|curlCode: \d+"
)


def is_passing(error: OSError) -> bool:
    """Whether a fault may be gone when the same is tried a little later."""
    return error.errno in _PASSING or (
        error.errno is None and _PASSING_TEXT.search(str(error)) is not None
    )


def reason_of(error: Exception) -> str:
    """The reason that the system gives, where Arrow wraps it in a sentence about its file."""
    return first_line(error, 4096).rpartition("Detail: ")[2]


def patiently(call: Callable[[], T], address: str, what: str, *, seconds: float | None = None) -> T:
    """Call until it succeeds, or fails with something that lasts, or the time is over.

    The pauses double up to 15 seconds, and are drawn at random below that, so that the processes of
    a sweep do not all come back at once.

    Args:
        call: does one thing to the storage; it may be done again after it has failed.
        address: the storage's.
        what: what is tried, in words such as `write sweeps/mosi/ledger.jsonl`.
        seconds: how long; None for `PATIENCE_SECONDS`.

    Raises:
        OSError: what lasts.
        StorageLostError: what should have passed did not.
    """
    began, pause, is_waiting = time.monotonic(), FIRST_PAUSE_SECONDS, False
    seconds = _patience() if seconds is None else seconds
    try:
        while True:
            try:
                return call()
            except OSError as error:
                if not is_passing(error):
                    raise
                passed = time.monotonic() - began
                if passed >= seconds:
                    raise _lost(address, what, passed, error) from None
                # The first failure may be a hiccup, which no one needs to know of.
                if not is_waiting and pause > FIRST_PAUSE_SECONDS:
                    is_waiting = True
                    _faults.begin(address, what, reason_of(error), seconds)
                time.sleep(min(pause * random.uniform(0.5, 1.0), seconds - passed))
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
    finally:
        if is_waiting:
            _faults.end(address)


@contextlib.contextmanager
def report_faults_to(note: Callable[[str], None]) -> Iterator[None]:
    """One line to `note` when a fault of this process begins, and one when it ends, for as long as
    the block lasts. Elsewhere these are warnings of the logger `magtkd.store`."""
    before, _faults.note = _faults.note, note
    try:
        yield
    finally:
        _faults.note = before


class _Faults:
    """The storages that this process waits for."""

    def __init__(self) -> None:
        self.note: Callable[[str], None] = logging.getLogger("magtkd.store").warning
        self.patience = PATIENCE_SECONDS
        self._lock = threading.Lock()
        self._waiting: dict[str, tuple[int, float]] = {}

    def begin(self, address: str, what: str, reason: str, seconds: float) -> None:
        with self._lock:
            number, since = self._waiting.get(address, (0, time.monotonic()))
            self._waiting[address] = number + 1, since
        if number == 0:
            self.note(
                f"storage {address}: cannot {what}: {reason}; trying again for {seconds:.0f} s"
            )

    def end(self, address: str) -> None:
        """One that waited does not any more: it was answered, or has given up and says so."""
        with self._lock:
            number, since = self._waiting.pop(address)
            if number > 1:
                self._waiting[address] = number - 1, since
        if number == 1:
            self.note(
                f"storage {address}: the wait is over, after {time.monotonic() - since:.0f} s"
            )


_faults = _Faults()


@contextlib.contextmanager
def patience_of(seconds: float) -> Iterator[None]:
    """Wait no longer than that for faults in the block: a person waits for its end. Also a
    decorator. `MAGTKD_STORAGE_PATIENCE` counts more."""
    before, _faults.patience = _faults.patience, seconds
    try:
        yield
    finally:
        _faults.patience = before


def _patience() -> float:
    try:
        return float(os.environ["MAGTKD_STORAGE_PATIENCE"])
    except (KeyError, ValueError):
        return _faults.patience


def _lost(address: str, what: str, passed: float, error: OSError) -> StorageLostError:
    return StorageLostError(
        f"storage {address}: cannot {what}: {reason_of(error)}; tried for {passed:.0f} s",
        "continue when it answers",
    )
