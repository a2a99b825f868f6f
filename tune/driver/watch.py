"""What the driver does beside Ray Tune's loop: stop on a signal, and write down what runs.

    SIGINT, SIGTERM, SIGUSR1    save the running sessions, then stop; a second one stops at once
    a budget that is used up    the same

Saving has a time limit, after which earlier checkpoints hold. SIGUSR1 is what a Slurm job passes on
when its time is nearly over.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import ray
import ray.tune as ray_tune
from ray.exceptions import GetTimeoutError, RayError

from magtkd.errors import RayLostError, StorageLostError, first_line
from tune.cluster import Node, live_nodes
from tune.driver.limits import Limits
from tune.driver.recorder import Recorder
from tune.engine import EngineActivity, EngineHandle, Ref, WantedWorkers, fetch, import_problem
from tune.ledger import Live, LiveFile, LiveNode, Warned

__all__ = ["Stop", "Watch", "stop_signals"]

INTERVAL_SECONDS = 2.0
PATIENCE_SECONDS = 3.0
"""How long workers wait for a node before anything is said."""
SAY_SECONDS = 60.0
"""The least time between two lines on what is waited for."""
NODE_SECONDS = 4.0
SAVE_SECONDS = 20.0
"""How long a signal waits for what runs to be saved, and then for an object store. Slurm and
Kubernetes kill what has not ended 30 seconds after SIGTERM, unless they are set otherwise."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Stop(ray_tune.Stopper):  # type: ignore[misc]
    """Ends all trials on a signal, when a limit is reached, or when nothing can be recorded any
    more.

    Args:
        engine: saves the running sessions first.
        recorder: whose `error` ends the sweep.
        reached: gives the setting whose limit is reached, if one is.
        note: called with one line on what happens.
    """

    def __init__(
        self,
        engine: EngineHandle,
        recorder: Recorder,
        reached: Callable[[], str | None],
        note: Callable[[str], None],
    ) -> None:
        self._engine, self._recorder = engine, recorder
        self._reached, self._note = reached, note
        self._signal: signal.Signals | None = None
        self._is_over = False
        self.why: str | None = None
        """The limit that was reached."""

    def request(self, number: int, *frame: Any) -> None:
        """The handler of the signals.

        Raises:
            KeyboardInterrupt: it is the second one.
        """
        if self._signal is not None:
            raise KeyboardInterrupt
        self._signal = signal.Signals(number)
        # The loop may be waiting for an object store, and does not come here before that.
        self._recorder.hurry(SAVE_SECONDS)

    def is_reached(self) -> bool:
        """Whether a limit is reached, which `why` then names."""
        self.why = self.why or self._reached()
        return self.why is not None

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        if self._is_over or self._recorder.error is not None:
            return True
        if self._signal is not None:
            what = f"{self._signal.name}: saving what runs, at the end of its epoch; again to skip"
        elif self.is_reached():
            what = f"{self.why}: saving what runs, at the end of its epoch"
        else:
            return False
        self._note(what)
        self._save()
        if self._signal is not None:
            self._recorder.hurry(SAVE_SECONDS)  # from now on
        self._is_over = True
        return True

    def _save(self) -> None:
        try:
            num_failed = fetch(self._engine.save.remote(), timeout=SAVE_SECONDS)
            if num_failed:
                self._note(f"{num_failed} sessions could not be saved; earlier checkpoints hold")
        except GetTimeoutError:
            self._note(f"not saved within {SAVE_SECONDS:.0f} s; earlier checkpoints hold")
        except RayError as error:
            self._note(f"sessions could not be saved: {first_line(error, 80)}")

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles it into a folder that nothing is read from


@contextlib.contextmanager
def stop_signals(stop: Stop) -> Iterator[None]:
    """Signals mean `stop` for as long as the block lasts; in the main thread, which gets them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, stop.request) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Watch(ray_tune.Callback):  # type: ignore[misc]
    """Asks the engine every few seconds what it does: for the live file beside the ledger, which
    `magtkd status` reads, and for warnings. Also records which nodes are lost or join.

    Args:
        engine: the engine.
        recorder: records warnings.
        limits: learns where nothing may begin any more.
        allow: called every few seconds, to tell the engine what may begin.
        stop: gets the signals back from Tune, which takes SIGUSR1 for itself.
        live_file: where it is written.
        note: called with one line on what is waited for.
        show: called with what is written to the live file.
    """

    def __init__(
        self,
        engine: EngineHandle,
        recorder: Recorder,
        limits: Limits,
        allow: Callable[[], None],
        stop: Stop,
        live_file: LiveFile,
        note: Callable[[str], None],
        show: Callable[[Live], None],
    ) -> None:
        self._show = show
        self._engine, self._recorder, self._stop = engine, recorder, stop
        self._limits, self._allow = limits, allow
        self._live_file = live_file
        self._asked: Ref[EngineActivity] | None = None
        self._last = self._checked = -INTERVAL_SECONDS
        self._note, self._said = note, -SAY_SECONDS
        self._nodes = _by_id()
        self._nodes_seen = time.monotonic()

    def setup(self, *args: Any, **info: Any) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, self._stop.request)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self._watch_nodes()
        if time.monotonic() - self._checked >= INTERVAL_SECONDS:
            self._recorder.check()
            self._checked = time.monotonic()
        if self._asked is None:
            if time.monotonic() - self._last >= INTERVAL_SECONDS:
                self._allow()
                self._asked, self._last = self._engine.describe.remote(), time.monotonic()
            return
        done, _ = ray.wait([self._asked], timeout=0)
        if done:
            self._take(self._asked)
            self._asked = None
        elif time.monotonic() - self._last >= 5 * INTERVAL_SECONDS:
            self._live_file.write(Live.now(engine="restarting"))
            self._last = time.monotonic()

    def close(self) -> None:
        """Record the last warnings, and remove the live file."""
        with contextlib.suppress(RayError):
            self._warn(fetch(self._engine.describe.remote(), timeout=5).warnings)
        self._live_file.remove()

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def _watch_nodes(self) -> None:
        """Record nodes that are gone or have joined, each time."""
        if time.monotonic() - self._nodes_seen < NODE_SECONDS:
            return
        before, self._nodes = self._nodes, _by_id()
        self._nodes_seen = time.monotonic()
        for gone in before.keys() - self._nodes.keys():
            message = f"node {before[gone]} is gone; its work is repeated elsewhere"
            self._recorder.record(Warned(message=message))
        for new in self._nodes.keys() - before.keys():
            self._recorder.record(Warned(message=f"node {self._nodes[new]} has joined"))

    def _take(self, answer: Ref[EngineActivity]) -> None:
        try:
            activity = fetch(answer)
        except RayError as error:
            if problem := import_problem(error):
                self._recorder.error = self._recorder.error or RayLostError(problem)
            return
        self._warn(activity.warnings)
        if activity.problem:
            lost = StorageLostError(activity.problem)
            self._recorder.error = self._recorder.error or lost
        self._limits.look(withheld=activity.is_withheld)
        self._say_what_waits(activity.wanted)
        nodes = (
            LiveNode(name=node.name, has=node.has, workers=asdict(node.workers))
            for node in activity.nodes
        )
        live = Live.now(
            engine="up",
            trials=activity.trials,
            workers=asdict(activity.workers),
            nodes=nodes,
            wanted=map(str, activity.wanted),
        )
        self._live_file.write(live)
        self._show(live)

    def _say_what_waits(self, wanted: Sequence[WantedWorkers]) -> None:
        """Say once a minute for which nodes workers wait."""
        missing = [one for one in wanted if not one.is_live and one.seconds > PATIENCE_SECONDS]
        if missing and time.monotonic() - self._said >= SAY_SECONDS:
            self._said = time.monotonic()
            for one in missing:
                self._note(str(one))

    def _warn(self, warnings: list[str]) -> None:
        for message in warnings:
            if message not in self._recorder.state.warnings:
                self._recorder.record(Warned(message=message))


def _by_id() -> dict[str, Node]:
    return {node.id: node for node in live_nodes()}
