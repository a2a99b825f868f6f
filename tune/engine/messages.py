"""What the engine, its workers and the trials send each other.

Imports neither Ray nor torch.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from magtkd.config import Config
from magtkd.errors import (
    DivergedError,
    StageMemoryError,
    StorageError,
    StorageLostError,
    first_line,
)
from magtkd.metrics import Report
from magtkd.pipeline import Plan, StageRecord
from tune.space import Candidate

__all__ = [
    "EngineActivity",
    "Failure",
    "FailureKind",
    "Moved",
    "NodeActivity",
    "PoolCounts",
    "SessionRequest",
    "StageDone",
    "StageProgress",
    "StageRequest",
    "Step",
    "TrialRequest",
    "WantedWorkers",
    "WorkerPlace",
    "WorkerSession",
    "ends_batch",
    "failure_of",
]


class FailureKind(StrEnum):
    """What a stage's failure means."""

    DIVERGED = "diverged"
    FAILED = "failed"
    STORAGE = "storage"
    """The store cannot be read, written or seen: the sweep ends, and no trial."""


@dataclass(frozen=True)
class Failure:
    """A stage that gave no result; `details` is the traceback."""

    kind: FailureKind
    message: str
    details: str = ""


# --- requests ---------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class TrialRequest:
    """A trial asks the engine for its session."""

    trial: int
    candidate: Candidate
    checkpoint: bytes | None = None
    """A session to continue from, instead of the last checkpoint."""
    needs_session: bool = False
    """Open a session even where the fusion artifact exists: others may continue from it."""


@dataclass(frozen=True, kw_only=True)
class StageRequest:
    """The engine asks a worker for a stage."""

    stage: str
    config: Config
    plan: Plan
    is_shared: bool
    """Whether other trials may need the stage: it then continues from its last checkpoint."""


@dataclass(frozen=True, kw_only=True)
class SessionRequest:
    """The engine asks a worker to open a fusion session."""

    session: str
    """A name that no other opening has."""
    config: Config
    plan: Plan
    checkpoint_name: str
    """The name of the session's checkpoints in the store."""
    checkpoint: bytes | None = None
    """A session to continue from, instead of the last checkpoint."""


# --- from a worker ----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class WorkerPlace:
    """Where a worker came up: the node's id by Ray, and its host name; `problem` is why it cannot
    work there."""

    node_id: str
    host: str
    problem: str = ""


@dataclass(frozen=True)
class Moved:
    """The session went to another worker; ask the engine for it again."""


@dataclass(frozen=True)
class StageDone:
    """A stage that was trained; `num_bytes` is the size of its table; `warnings` is what a person
    should know."""

    record: StageRecord
    num_bytes: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class StageProgress:
    """A stage in training: its last epoch so far, of how many, and what dev selects by."""

    epoch: int
    num_epochs: int
    metric: str
    value: float | None

    def __str__(self) -> str:
        value = "" if self.value is None else f", {self.metric} {self.value:.4f}"
        return f"epoch {self.epoch}/{self.num_epochs}{value},"


@dataclass(frozen=True)
class WorkerSession:
    """A session that a worker opened: the reports of its epochs so far, and the seconds that these
    took; `place` is what its artifact's metrics say of where it was trained."""

    reports: list[Report]
    seconds: float
    place: dict[str, Any]


@dataclass(frozen=True)
class Step:
    """One epoch of a session that has worked `seconds` so far. After the last one, `final` is the
    artifact's metrics."""

    epoch: int
    metrics: dict[str, float]
    seconds: float
    final: dict[str, Any] | None = None


# --- from the engine to the driver ------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class PoolCounts:
    """How many workers train, hold sessions, are idle, are starting, or are pending since no node
    has room for them; and how many requests wait."""

    training: int = 0
    holding: int = 0
    idle: int = 0
    starting: int = 0
    pending: int = 0
    waiting: int = 0


@dataclass(frozen=True, kw_only=True)
class NodeActivity:
    """A node that is alive: its host name, what it has in words, and what the workers there do."""

    name: str
    has: str
    workers: PoolCounts


@dataclass(frozen=True, kw_only=True)
class WantedWorkers:
    """Workers that no node has room for: how many of what, and for how long."""

    shape: str
    number: int
    seconds: float
    from_node: str
    """The node type that the autoscaler can add for them, or a live node that is large enough;
    empty where there is none, and the sweep waits for a node."""
    is_live: bool

    def __str__(self) -> str:
        workers = f"{self.number} worker{'s' if self.number > 1 else ''} of {self.shape}"
        if self.is_live:
            return f"{workers}: wait for room for {self.seconds:.0f} s"
        if self.from_node:
            return f"{workers}: wait for a node of type {self.from_node} for {self.seconds:.0f} s"
        return f"{workers}: wait for a node that is large enough for {self.seconds:.0f} s"


@dataclass(frozen=True, kw_only=True)
class EngineActivity:
    """What trials and workers do now."""

    trials: dict[int, str]
    """What each trial does or waits for, in words."""
    workers: PoolCounts
    nodes: tuple[NodeActivity, ...] = ()
    wanted: tuple[WantedWorkers, ...] = ()
    warnings: list[str] = field(default_factory=list)
    """What a person should know, since the engine started."""
    problem: str = ""
    """Why the sweep must end: a node that came later cannot do its work."""
    is_withheld: bool = False
    """Whether nothing is in training, and what is left may not begin; see `Gate`."""


def ends_batch(epoch: int, metrics: Mapping[str, float], stops: Sequence[int]) -> bool:
    """Whether a trial may not be trained beyond an epoch before its scheduler has seen it: the
    scheduler may decide after the epochs `stops`, and after any whose metrics are not finite."""
    return epoch in stops or not all(map(math.isfinite, metrics.values()))


def failure_of(stage: str, error: Exception) -> Failure:
    """What a stage's own exception means for the trials that need it."""
    kind = _KINDS.get(type(error), FailureKind.FAILED)
    is_whole = type(error) in _KINDS or isinstance(error, StageMemoryError)
    # One of ours is a line that ends with the way out, beside the address of a storage.
    text = first_line(error, 1000) if is_whole else first_line(error)
    message = text if is_whole else f"{stage}: {type(error).__name__}: {text}"
    return Failure(kind, message, "".join(traceback.format_exception(error)))


_KINDS: dict[type[Exception], FailureKind] = {
    DivergedError: FailureKind.DIVERGED,
    StorageError: FailureKind.STORAGE,
    StorageLostError: FailureKind.STORAGE,
}
