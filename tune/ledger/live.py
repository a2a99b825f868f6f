"""The live file: what runs now, as the driver wrote it last.

It is no part of the truth: it is replaced every few seconds, and gone when the driver ends.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Self

import msgspec

__all__ = ["Live", "LiveFile", "LiveNode"]


class LiveNode(msgspec.Struct, frozen=True, kw_only=True):
    """A node: its host name, what it has in words, and how many workers there do what."""

    name: str
    has: str
    workers: dict[str, int]


class Live(msgspec.Struct, frozen=True, kw_only=True):
    """What the driver knew at a time."""

    time: int
    """Milliseconds."""
    process: str
    """The driver, as its lock names it."""
    engine: str
    """`up`, or `restarting` where it has not answered for a while."""
    trials: dict[int, str] = {}
    """What each trial does or waits for, in words."""
    workers: dict[str, int] = {}
    """How many workers do what; see `PoolCounts`."""
    nodes: list[LiveNode] = []
    wanted: list[str] = []
    """Workers that wait for a node, in words."""

    @classmethod
    def now(
        cls,
        *,
        engine: str,
        trials: dict[int, str] | None = None,
        workers: dict[str, int] | None = None,
        nodes: Iterable[LiveNode] = (),
        wanted: Iterable[str] = (),
    ) -> Self:
        """What this process knows now."""
        return cls(
            time=time.time_ns() // 1_000_000,
            process=f"process {os.getpid()} on {socket.gethostname()}",
            engine=engine,
            trials=trials or {},
            workers=workers or {},
            nodes=list(nodes),
            wanted=list(wanted),
        )

    @property
    def age(self) -> float:
        """Seconds since then."""
        return max(0.0, time.time() - self.time / 1000)


class LiveFile:
    """The live file of a sweep."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, live: Live) -> None:
        """Replace it. A full disk is no reason to stop: what matters is recorded elsewhere."""
        temporary = self._path.with_name(f".{self._path.name}.tmp")
        with contextlib.suppress(OSError):
            temporary.write_bytes(msgspec.json.encode(live))
            temporary.replace(self._path)

    def read(self) -> Live | None:
        """What it has; None where there is none, or none that this version understands."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Live)
        except (OSError, ValueError):
            return None

    def remove(self) -> None:
        """The driver ends."""
        with contextlib.suppress(OSError):
            self._path.unlink()
