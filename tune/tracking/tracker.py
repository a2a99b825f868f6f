"""MLflow as a projection of the ledger: it can fall behind, catch up, or be rebuilt.

A thread of the driver follows the ledger's file, turns events into updates of runs, and sends
these in batches. Every time stamp comes from the ledger, so that sending twice changes nothing:
MLflow keeps one row where run, metric, time, step and value agree. How far the ledger has been sent
is itself a tag of the sweep's run, so that it cannot disagree with what the store holds.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator

from magtkd.errors import MagtkdError, ResumableError, TrackingError
from tune.ledger import SweepLayout, first_event
from tune.redact import redact
from tune.tracking.address import check_address, is_database
from tune.tracking.follower import Follower, num_events_after
from tune.tracking.refusals import in_our_words
from tune.tracking.runs import CURSOR_TAG
from tune.tracking.schema import check_schema, migrate
from tune.tracking.sender import ArtifactsOf
from tune.tracking.store import import_mlflow, read_tag

__all__ = ["Tracker", "check_store", "num_behind", "sync"]

INTERVAL_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 10.0
LONGEST_WAIT_SECONDS = 30.0  # between attempts at a store that is away
PATIENCE_SECONDS = 3.0  # with a store that is away, at the sweep's end
BUSY_SHARE = 0.05  # of one core, while tracking keeps up
SILENT_SECONDS = 5.0  # after which whoever waits for a store is told for what


class Tracker:
    """Follows a ledger's file in a thread and keeps MLflow up to date; never raises into the sweep.

    Args:
        layout: where the sweep is; its ledger's first event may come later.
        tracking_uri: MLflow's address.
        artifacts_of: the files of an ended trial (which comes without its reports), name to
            content; called in the thread.
        note: called with one line on what a person should know, in the thread.
    """

    def __init__(
        self,
        layout: SweepLayout,
        tracking_uri: str,
        *,
        artifacts_of: ArtifactsOf | None = None,
        note: Callable[[str], None] | None = None,
    ) -> None:
        self._uri, self._place = tracking_uri, redact(tracking_uri)
        self._note = note or logging.getLogger(__name__).warning
        self._follower = Follower(layout, tracking_uri, artifacts_of, self._note)
        self._behind = self._away = False
        self._closing, self._abandoned = threading.Event(), threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tracking", daemon=True)
        self._thread.start()

    @property
    def behind(self) -> bool:
        """Whether the store is away."""
        return self._behind

    def num_left(self) -> int:
        """Events that MLflow lacks."""
        return self._follower.num_left()

    def hurry(self) -> None:
        """Send what is there without a further pause: the last trial has ended, and this need not
        wait until Ray has."""
        self._wake.set()

    def close(self, timeout: float = 30.0) -> int:
        """Wait for MLflow to catch up; how many events are left.

        For as long as it gets on: at most `timeout` seconds without any progress, and not even that
        where the store is away. `sync` can send the rest at any time.
        """
        self._closing.set()
        self._wake.set()
        sent, since = self._follower.sent, time.monotonic()
        while self._thread.is_alive() and (waited := time.monotonic() - since) < timeout:
            if self._away and waited >= PATIENCE_SECONDS:
                break
            self._thread.join(0.05)
            if self._follower.sent != sent:
                sent, since = self._follower.sent, time.monotonic()
        self._abandoned.set()
        self._thread.join(min(timeout, 1.0))
        return self.num_left()

    def _run(self) -> None:
        wait = 0.0
        try:
            while not self._abandoned.is_set():
                closing = self._closing.is_set()
                started = self._follower.seconds
                try:
                    more = self._follower.step()
                except Exception as error:
                    self._away = True
                    if not self._is_passing(error):
                        return
                    wait = min(max(1.0, 2 * wait), LONGEST_WAIT_SECONDS)
                    self._pause(wait)
                    continue
                self._away, wait = False, 0.0
                self._recovered(more)
                if closing and not more:
                    return
                if not more:
                    spent = self._follower.seconds - started
                    pause = min(spent / BUSY_SHARE, LONGEST_PAUSE_SECONDS)
                    self._wake.wait(max(INTERVAL_SECONDS, pause))
                    self._wake.clear()
        finally:
            self._follower.close()

    def _is_passing(self, error: Exception) -> bool:
        """Note that tracking is behind, once; whether a retry makes sense."""
        found = in_our_words(self._uri, error)
        if not isinstance(found, ResumableError):
            self._note(f"tracking has stopped: {found}")
            return False
        if not self._behind:
            self._behind = True
            self._note(
                f"tracking is behind: {found.reason.removeprefix('tracking at ')}; "
                "the sweep continues, and tracking catches up by itself"
            )
        return True

    def _recovered(self, more: bool) -> None:
        if self._behind and not more:
            self._behind = False
            self._note(f"tracking has caught up: {self._place}")

    def _pause(self, seconds: float) -> None:
        """Wait; when the sweep is being closed, only as long as is polite to the store."""
        if self._closing.wait(seconds):
            self._abandoned.wait(min(seconds, 1.0))


def check_store(tracking_uri: str, *, migrating: bool = False) -> None:
    """Refuse a tracking store to which nothing could be sent, as far as that is known without a
    server, which may be away.

    Args:
        tracking_uri: the store's address.
        migrating: bring the database of an older MLflow to what the installed one needs.

    Raises:
        TrackingError: the address is not one, or its database has another MLflow's schema.
    """
    check_address(tracking_uri)
    if not is_database(tracking_uri):
        return
    try:
        if migrating:
            import_mlflow()
            migrate(tracking_uri)
        else:
            check_schema(tracking_uri)
    except Exception as error:
        found = in_our_words(tracking_uri, error)
        if isinstance(found, TrackingError):
            raise found from None


def num_behind(layout: SweepLayout, tracking_uri: str) -> int:
    """Events of a ledger that a store lacks, by what is noted in the store itself.

    Nothing is made in the store, and no file where there is none.

    Raises:
        SweepError: the ledger is missing or damaged.
        TrackingError: the store refuses.
        StorageLostError: the store cannot be reached.
    """
    opened = first_event(layout.ledger)
    if opened is None:
        return 0
    # A person waits for the answer.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    try:
        noted = read_tag(tracking_uri, opened.sweep_id, CURSOR_TAG)
    except Exception as error:
        raise in_our_words(tracking_uri, error) from None
    cursor = int(noted or 0)
    # A ledger that is shorter is an older copy, and all of it will be sent.
    return num_events_after(layout.ledger, 0 if cursor > layout.ledger.stat().st_size else cursor)


def sync(
    layout: SweepLayout,
    tracking_uri: str,
    *,
    artifacts_of: ArtifactsOf | None = None,
    note: Callable[[str], None] | None = None,
) -> int:
    """Send to MLflow whatever of a ledger it lacks; how many events that were.

    Raises:
        SweepError: the ledger is missing or damaged.
        TrackingError: the store refuses.
        StorageLostError: the store cannot be reached, or breaks off, or another process sends it.
    """
    note = note or logging.getLogger(__name__).warning
    follower = Follower(layout, tracking_uri, artifacts_of, note)
    try:
        with _saying_what_is_waited_for(follower, tracking_uri, note):
            return follower.catch_up()
    except MagtkdError:
        raise
    except Exception as error:
        raise in_our_words(tracking_uri, error) from None
    finally:
        follower.close()


@contextlib.contextmanager
def _saying_what_is_waited_for(
    follower: Follower, tracking_uri: str, note: Callable[[str], None]
) -> Iterator[None]:
    """One line where nothing was sent for a while: a server may take connections and not answer. A
    file answers, though MLflow needs seconds to make one."""
    ended = threading.Event()

    def watch() -> None:
        is_silent = not ended.wait(SILENT_SECONDS) and follower.sent == sent
        if is_silent and not tracking_uri.startswith("sqlite"):
            note(f"tracking at {redact(tracking_uri)}: waiting for an answer")

    sent = follower.sent
    threading.Thread(target=watch, name="waiting", daemon=True).start()
    try:
        yield
    finally:
        ended.set()
