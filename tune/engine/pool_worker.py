"""A worker as the pool knows it: on its way up, training, holding sessions, or idle."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from tune.cluster import Shape
from tune.engine.handles import WorkerHandle
from tune.engine.messages import PoolCounts, WorkerPlace

__all__ = ["OVERDUE_SECONDS", "PoolWorker", "Wanted", "counts_of"]

OVERDUE_SECONDS = 15.0
"""How long a worker that should find room may take to come up before sessions share another."""


@dataclass(eq=False, kw_only=True)
class PoolWorker:
    """A worker process: on its way up while it has no `place`; else `is_training` a stage, or
    holding `sessions`, or idle."""

    handle: WorkerHandle
    shape: Shape
    place: WorkerPlace | None = None
    has_room: bool = True
    """While on its way up: whether a node has room for it, as far as is known."""
    is_training: bool = False
    sessions: set[str] = field(default_factory=set)
    since: float = field(default_factory=time.monotonic)
    """When it was asked for, or last had something to do."""

    @property
    def host(self) -> str:
        """The host on which it is up."""
        return self.place.host if self.place is not None else ""

    @property
    def is_ready(self) -> bool:
        """Whether it is up."""
        return self.place is not None

    @property
    def is_idle(self) -> bool:
        """Whether it is up and has nothing to do."""
        return self.is_ready and not self.is_training and not self.sessions

    @property
    def is_coming_soon(self) -> bool:
        """Whether it is on its way up, and not for long."""
        return self.has_room and time.monotonic() - self.since < OVERDUE_SECONDS


@dataclass(frozen=True)
class Wanted:
    """Workers of a shape that wait for a node: how many, and seconds since the first was asked
    for."""

    shape: Shape
    number: int
    seconds: float


def counts_of(workers: Sequence[PoolWorker]) -> PoolCounts:
    """What some workers do."""
    on_their_way = [worker for worker in workers if not worker.is_ready]
    return PoolCounts(
        training=sum(worker.is_training for worker in workers),
        holding=sum(bool(worker.sessions) for worker in workers),
        idle=sum(worker.is_idle for worker in workers),
        starting=sum(worker.has_room for worker in on_their_way),
        pending=sum(not worker.has_room for worker in on_their_way),
    )
