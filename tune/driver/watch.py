"""What the driver does beside Ray Tune's loop: stop on a signal, and tell what goes on.

    SIGINT, SIGTERM, SIGUSR1    export the running sessions, then stop; a second one stops at once

SIGUSR1 is what Slurm's `--signal=USR1@120` sends before the time is over.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ray
import ray.tune as ray_tune
from ray.exceptions import RayError

from tune.driver.recorder import Recorder
from tune.ledger.layout import LIVE_FILE

__all__ = ["Stop", "Watch", "stop_signals"]

INTERVAL_SECONDS = 2.0
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Stop(ray_tune.Stopper):  # type: ignore[misc]
    """Ends all trials on a signal, or when nothing can be recorded any more.

    Args:
        engine: exports the running sessions first.
        recorder: says whether it can record.
        say: told in one line what happens.
    """

    def __init__(self, engine: Any, recorder: Recorder, say: Callable[[str], None]) -> None:
        self._engine, self._recorder, self._say = engine, recorder, say
        self._signal: signal.Signals | None = None
        self._is_over = False

    def request(self, number: int, *frame: Any) -> None:
        """The handler of the signals.

        Raises:
            KeyboardInterrupt: it is the second one.
        """
        if self._signal is not None:
            raise KeyboardInterrupt
        self._signal = signal.Signals(number)

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        if self._is_over or self._recorder.error is not None:
            return True
        if self._signal is None:
            return False
        self._say(f"{self._signal.name}: saving what runs, at the end of its epoch; again to skip")
        try:
            num_failed = ray.get(self._engine.save.remote())
            if num_failed:
                self._say(f"{num_failed} sessions could not be saved; earlier exports hold")
        except RayError as error:
            self._say(f"sessions could not be saved: {str(error).splitlines()[0]}")
        self._is_over = True
        return True

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles it into a folder that nobody reads


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
    """Asks the engine every now and then what goes on: for `live.json` beside the ledger, from
    which `magtkd status` reads, and for what a person should know.

    Args:
        engine: the engine.
        recorder: records what a person should know.
        stop: gets the signals back from Tune, which takes SIGUSR1 for itself.
        folder: the sweep's folder.
    """

    def __init__(self, engine: Any, recorder: Recorder, stop: Stop, folder: Path) -> None:
        self._engine, self._recorder, self._stop = engine, recorder, stop
        self._file = folder / LIVE_FILE
        self._asked: Any = None
        self._last = -INTERVAL_SECONDS

    def setup(self, *args: Any, **info: Any) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, self._stop.request)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if self._asked is None:
            if time.monotonic() - self._last >= INTERVAL_SECONDS:
                self._asked, self._last = self._engine.describe.remote(), time.monotonic()
            return
        done, _ = ray.wait([self._asked], timeout=0)
        if done:
            self._asked = None
            self._tell(done[0])
        elif time.monotonic() - self._last >= 5 * INTERVAL_SECONDS:
            self._write({"engine": "restarting"})
            self._last = time.monotonic()

    def close(self) -> None:
        """The last question, and no live file any more."""
        with contextlib.suppress(RayError):
            self._warn(ray.get(self._engine.describe.remote(), timeout=5)["warnings"])
        self._file.unlink(missing_ok=True)

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def _tell(self, answer: Any) -> None:
        try:
            told = ray.get(answer)
        except RayError:
            return
        self._warn(told.pop("warnings"))
        self._write({"engine": "up", **told})

    def _warn(self, warnings: list[str]) -> None:
        for message in warnings:
            if message not in self._recorder.state.warnings:
                self._recorder.record("warning", message=message)

    def _write(self, told: dict[str, Any]) -> None:
        process = f"process {os.getpid()} on {socket.gethostname()}"
        content = {"time": time.time_ns() // 1_000_000, "process": process, **told}
        temporary = self._file.with_name(f".{LIVE_FILE}.tmp")
        with contextlib.suppress(OSError):  # a full disk: what matters is said elsewhere
            temporary.write_text(json.dumps(content))
            temporary.replace(self._file)
