"""Checkpoints of sessions, from which training continues after its process was killed.

    ROOT/sessions/NAME/TIME-SHA256.safetensors

One name is one piece of training. The newest file that matches the checksum in its name counts.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import time
from typing import Protocol

from magtkd.errors import StorageLostError
from magtkd.store.files import Files

__all__ = ["Checkpointable", "Checkpoints"]

SHARE = 0.05
"""The share of the time that may be spent on checkpoints."""
SECONDS = 1.0
"""The least time between two checkpoints."""

_FILE = re.compile(r"\d{20}-([0-9a-f]{64})\.safetensors")


class Checkpointable(Protocol):
    """A session, as far as `Checkpoints` uses it."""

    @property
    def is_done(self) -> bool: ...
    def checkpoint(self) -> bytes: ...


class Checkpoints:
    """The checkpoints of one piece of training.

    Args:
        store: where they are.
        name: the training's name below `sessions/`: letters, digits, `-` and `/`.
    """

    def __init__(self, store: Files, name: str) -> None:
        self._store, self._folder = store, f"sessions/{name}"
        self._last_time, self._last_cost = time.monotonic(), 0.0

    def load(self) -> bytes | None:
        """The newest checkpoint that is whole; None where there is none.

        Raises:
            StorageLostError: it cannot be known; training must not begin anew for that.
        """
        for name in reversed(self._store.list_files(self._folder)):
            found = _FILE.fullmatch(name)
            if found is None:
                continue
            try:
                content = self._store.read_file(f"{self._folder}/{name}")
            except OSError:
                continue
            if hashlib.sha256(content).hexdigest() == found[1]:
                return content
        return None

    def save(self, checkpoint: bytes) -> None:
        """Write a checkpoint, then remove those before it.

        Raises:
            StorageLostError: it could not be written; those before it are still there.
        """
        before = self._store.list_files(self._folder)
        digest = hashlib.sha256(checkpoint).hexdigest()
        self._store.write_file(
            f"{self._folder}/{time.time_ns():020}-{digest}.safetensors", checkpoint
        )
        for name in before:
            self._store.remove_file(f"{self._folder}/{name}")

    def offer(self, session: Checkpointable) -> None:
        """Save a session's checkpoint if it is time to: at most a twentieth of the time is spent
        on this.

        A full disk does not end training: what there is to lose is the epochs since.
        """
        now = time.monotonic()
        if session.is_done or now - self._last_time < max(SECONDS, self._last_cost / SHARE):
            return
        with contextlib.suppress(StorageLostError):
            self.save(session.checkpoint())
        self._last_time = time.monotonic()
        self._last_cost = self._last_time - now

    def remove(self) -> None:
        """Remove all checkpoints: the training is over."""
        self._store.remove_folder(self._folder)
