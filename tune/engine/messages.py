"""What the engine, its workers and the trials send each other.

Imports neither Ray nor torch.
"""

from __future__ import annotations

import traceback
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

__all__ = [
    "EngineActivity",
    "Failure",
    "FailureKind",
    "PoolCounts",
    "SessionRequest",
    "StageDone",
    "StageRequest",
    "Step",
    "TrialRequest",
    "WorkerSession",
    "failure_of",
]


class FailureKind(StrEnum):
    """What a stage's failure means."""

    DIVERGED = "diverged"
    FAILED = "failed"
    STORAGE = "storage"
    """The store cannot be read or written: the sweep ends, and no trial."""


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
    config: Config
    name: str = "0"
    """Of its candidate, under which its session's checkpoints are kept."""
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


@dataclass(frozen=True)
class StageDone:
    """A stage that was trained; `num_bytes` is the size of its table; `warnings` is what a person
    should know."""

    record: StageRecord
    num_bytes: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class WorkerSession:
    """A session that a worker opened: the reports of its epochs so far, and the seconds that these
    took."""

    reports: list[Report]
    seconds: float


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
    """How many workers train, hold sessions, are idle or starting, and requests that wait."""

    training: int = 0
    holding: int = 0
    idle: int = 0
    starting: int = 0
    waiting: int = 0


@dataclass(frozen=True, kw_only=True)
class EngineActivity:
    """What trials and workers do now."""

    trials: dict[int, str]
    """What each trial does or waits for, in words."""
    workers: PoolCounts
    warnings: list[str] = field(default_factory=list)
    """What a person should know, since the engine started."""


def failure_of(stage: str, error: Exception) -> Failure:
    """What a stage's own exception means for the trials that need it."""
    kind = _KINDS.get(type(error), FailureKind.FAILED)
    text = first_line(error)
    is_whole = type(error) in _KINDS or isinstance(error, StageMemoryError)
    message = text if is_whole else f"{stage}: {type(error).__name__}: {text}"
    return Failure(kind, message, "".join(traceback.format_exception(error)))


_KINDS: dict[type[Exception], FailureKind] = {
    DivergedError: FailureKind.DIVERGED,
    StorageError: FailureKind.STORAGE,
    StorageLostError: FailureKind.STORAGE,
}
