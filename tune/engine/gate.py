"""The gate before each training of a stage: where a sweep has a budget, none is begun that would
not end within it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field

__all__ = ["Allowance", "Gate"]

LOOK_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """What is left of a sweep's budget, and what stages are expected to take."""

    seconds: float | None = None
    """Of the wall clock, from when it is given; None where they have no limit."""
    stage_seconds: float | None = None
    """Of training, beside what was in training then; None where they have no limit."""
    expected: Mapping[str, float] = field(default_factory=dict)
    """Seconds of training by a stage's key; one that is missing is not known, and may begin."""


class Gate:
    """Knows what is in training, and what may still begin; in one event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._num_waiting = 0
        self._begun: dict[Hashable, float] = {}
        self.allow(Allowance())

    def allow(self, allowance: Allowance) -> None:
        """What holds from now on."""
        self._allowance, self._given = allowance, self._clock()

    @property
    def holds_all(self) -> bool:
        """Whether there are stages that may not begin, and none is in training."""
        return self._num_waiting > 0 and not self._begun

    async def wait(self, key: str, say: Callable[[], None]) -> None:
        """Wait until a stage may begin.

        Args:
            key: its key.
            say: called where it may not yet.
        """
        if self._may_begin(key):
            return
        say()
        self._num_waiting += 1
        try:
            while not self._may_begin(key):
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            self._num_waiting -= 1

    def begin(self, name: Hashable, key: str) -> bool:
        """Begin a stage under a name that no other training has; whether it may, now that there is
        a worker for it."""
        self.end(name)  # on a worker that died
        if self._may_begin(key):
            self._begun[name] = self._allowance.expected.get(key, 0.0)
            return True
        return False

    def end(self, name: Hashable) -> None:
        """What has that name is not in training any more, if it was."""
        self._begun.pop(name, None)

    def _may_begin(self, key: str) -> bool:
        allowance = self._allowance
        expected = allowance.expected.get(key)
        if expected is None:
            return True
        if allowance.seconds is not None:
            left = allowance.seconds - (self._clock() - self._given)
            if expected > left:
                return False
        if allowance.stage_seconds is None:
            return True
        return expected + sum(self._begun.values()) <= allowance.stage_seconds
