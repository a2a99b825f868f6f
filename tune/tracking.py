"""MLflow as a projection of the ledger: it can fall behind, catch up, or be made anew.

A thread of the driver follows the ledger's file, turns events into updates of runs, and sends
these in batches. Every time stamp comes from the ledger, so that sending twice changes nothing:
MLflow keeps one row where run, metric, time, step and value agree. How far the ledger has been sent
is itself a tag of the sweep's run, so that it cannot disagree with what the store holds.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from magtkd.errors import MagtkdError, StorageError, SweepError
from magtkd.locks import take_lock
from tune.addresses import default_tracking_uri, reason, redact
from tune.ledger import read_events, tail_events
from tune.mlflow_runs import ArtifactsOf, SweepRuns
from tune.projection import STATUS, Projection

__all__ = ["STATUS", "Tracker", "default_tracking_uri", "redact", "sync"]

INTERVAL_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 5.0
LONGEST_WAIT_SECONDS = 30.0  # between attempts at a store that is away
BUSY_SHARE = 0.1  # of one core, while tracking keeps up
CHUNK_BYTES = 1 << 18
NUM_HTTP_THREADS = 4


class Follower:
    """Sends a ledger to a store, step by step, from where the store says that it is."""

    def __init__(
        self,
        ledger_path: str | Path,
        tracking_uri: str,
        artifacts_of: ArtifactsOf | None,
        say: Callable[[str], None],
    ) -> None:
        self._path, self._uri = Path(ledger_path), tracking_uri
        self._artifacts_of, self._say_to, self._said = artifacts_of, say, set[str]()
        self._projection = Projection()
        self._runs: SweepRuns | None = None
        self._offset = self._sent = 0
        self._lock: int | None = None
        self._pool = (
            ThreadPoolExecutor(NUM_HTTP_THREADS) if tracking_uri.startswith("http") else None
        )

    def step(self) -> bool:
        """Send about one chunk; whether there may be more.

        Raises:
            SweepError: the ledger is damaged, or another process sends it.
            Exception: whatever MLflow raises when its store is away; the next step goes on.
        """
        if self._runs is None and not self._connect():
            return False
        assert self._runs is not None
        try:
            more = bool(self._projection.updates) or self._read()
            self._send(self._runs)
            self._runs.set_cursor(self._offset)
        except Exception:
            # A request may have been heard though its answer was lost: look again what is there.
            self._runs = None
            raise
        self._sent = self._offset
        return more

    def num_left(self) -> int:
        """Events that have not been sent."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._sent)
                return sum(line.endswith(b"\n") for line in file)
        except OSError:
            return 0

    def close(self) -> None:
        """Let another process send this ledger."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
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
        if message not in self._said:
            self._said.add(message)
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
        self._runs = SweepRuns(
            self._uri, opened, self._path.parent / "mlflow", self._artifacts_of, self._say
        )
        if self._offset == 0:
            self._skip_to(self._runs.cursor)
        return True

    def _skip_to(self, cursor: int) -> None:
        """Fold what the store has been told before."""
        if cursor > self._path.stat().st_size:
            return
        while self._offset < cursor:
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

    def _send(self, runs: SweepRuns) -> None:
        updates = self._projection.updates
        if self._pool is None:
            for number in list(updates):
                runs.send(updates[number])
                del updates[number]
            return
        # A server's answers take time rather than work: ask for many at once.
        sending = {n: self._pool.submit(runs.send, update) for n, update in updates.items()}
        errors = {n: future.exception() for n, future in sending.items()}
        for number, error in errors.items():
            if error is None:
                del updates[number]
        for error in errors.values():
            if error is not None:
                raise error


class Tracker:
    """Follows a ledger's file in a thread and keeps MLflow up to date; never raises into the sweep.

    Args:
        ledger_path: the ledger; its first event may come later.
        tracking_uri: MLflow's address.
        artifacts_of: the files of an ended trial (which comes without its reports), name to
            content; called in the thread.
        say: gets one line where a person should know something; called in the thread.
    """

    def __init__(
        self,
        ledger_path: str | Path,
        tracking_uri: str,
        *,
        artifacts_of: ArtifactsOf | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self._uri = redact(tracking_uri)
        self._say = say or logging.getLogger(__name__).warning
        self._follower = Follower(ledger_path, tracking_uri, artifacts_of, self._say)
        self._behind = False
        self._closing, self._abandoned = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="tracking", daemon=True)
        self._thread.start()

    @property
    def behind(self) -> bool:
        """Whether the store is away."""
        return self._behind

    def num_left(self) -> int:
        """Events that MLflow has not been told."""
        return self._follower.num_left()

    def close(self, timeout: float = 30.0) -> int:
        """Wait for MLflow to catch up, at most `timeout` seconds; how many events are left."""
        self._closing.set()
        self._thread.join(timeout)
        self._abandoned.set()
        self._thread.join(min(timeout, 1.0))
        return self.num_left()

    def _run(self) -> None:
        wait = 0.0
        try:
            while not self._abandoned.is_set():
                closing = self._closing.is_set()
                started = time.thread_time()
                try:
                    more = self._follower.step()
                except Exception as error:
                    if not self._is_passing(error):
                        return
                    wait = min(max(1.0, 2 * wait), LONGEST_WAIT_SECONDS)
                    self._pause(wait)
                    continue
                self._recovered(more)
                if closing and not more:
                    return
                spent = time.thread_time() - started
                wait = 0.0
                if not more:
                    pause = min(spent / BUSY_SHARE, LONGEST_PAUSE_SECONDS)
                    self._closing.wait(max(INTERVAL_SECONDS, pause))
        finally:
            self._follower.close()

    def _is_passing(self, error: Exception) -> bool:
        """Say that tracking is behind, once; whether trying again makes sense."""
        if isinstance(error, MagtkdError) and not isinstance(error, StorageError):
            self._say(f"tracking has stopped: {error}")
            return False
        if not self._behind:
            self._behind = True
            self._say(
                f"tracking is behind: {self._uri}: {reason(error)}; "
                "the sweep goes on, and tracking catches up by itself"
            )
        return True

    def _recovered(self, more: bool) -> None:
        if self._behind and not more:
            self._behind = False
            self._say(f"tracking has caught up: {self._uri}")

    def _pause(self, seconds: float) -> None:
        """Wait; when the sweep is being closed, only as long as is polite to the store."""
        if self._closing.wait(seconds):
            self._abandoned.wait(min(seconds, 1.0))


def sync(
    ledger_path: str | Path,
    tracking_uri: str,
    *,
    artifacts_of: ArtifactsOf | None = None,
    say: Callable[[str], None] | None = None,
) -> int:
    """Send to MLflow whatever of a ledger it lacks; how many events that were.

    Raises:
        SweepError: the ledger is missing or damaged, or another process sends it.
        StorageError: the store cannot be reached, or breaks off.
    """
    say = say or logging.getLogger(__name__).warning
    follower = Follower(ledger_path, tracking_uri, artifacts_of, say)
    try:
        return follower.catch_up()
    except MagtkdError:
        raise
    except Exception as error:
        raise StorageError(
            f"tracking at {redact(tracking_uri)}: {reason(error)}; try again when it answers"
        ) from None
    finally:
        follower.close()
