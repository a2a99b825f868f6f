"""What the engine, its workers and the trials send each other.

Imports neither Ray nor torch.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from magtkd.errors import DivergedError, StageMemoryError, StorageError, first_line
from magtkd.metrics import Report
from magtkd.pipeline import StageRecord

__all__ = [
    "EngineActivity",
    "Failure",
    "FailureKind",
    "PoolCounts",
    "StageDone",
    "Step",
    "WorkerSession",
    "failure_of",
]


class FailureKind(StrEnum):
    """What a stage's failure means."""

    DIVERGED = "diverged"
    FAILED = "failed"
    STORAGE = "storage"
    """The store cannot be written: the sweep ends, and no trial."""


@dataclass(frozen=True)
class Failure:
    """A stage that gave no result; `details` is the traceback."""

    kind: FailureKind
    message: str
    details: str = ""


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
    is_whole = isinstance(error, DivergedError | StageMemoryError | StorageError)
    message = text if is_whole else f"{stage}: {type(error).__name__}: {text}"
    return Failure(kind, message, "".join(traceback.format_exception(error)))


_KINDS: dict[type[Exception], FailureKind] = {
    DivergedError: FailureKind.DIVERGED,
    StorageError: FailureKind.STORAGE,
}
