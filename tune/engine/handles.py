"""The handles of Ray's actors, typed: what can be called on each, with what, and what is returned.

Ray gives a handle whose attributes are methods with `.remote(...)`. A Protocol for each actor lets
mypy check these calls; `tests/tune/engine/test_handles.py` holds the Protocols and the classes
together.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, Protocol, TypeVar, cast

from magtkd.errors import first_line, shorten
from magtkd.metrics import Report
from magtkd.pipeline import StageRecord
from magtkd.store import Artifact
from tune.engine.gate import Allowance
from tune.engine.messages import (
    EngineActivity,
    Failure,
    Moved,
    PoolCounts,
    SessionRequest,
    StageDone,
    StageProgress,
    StageRequest,
    Step,
    TrialRequest,
    WorkerPlace,
    WorkerSession,
)

__all__ = [
    "NAMESPACE",
    "EngineHandle",
    "FusionFound",
    "Method",
    "Opened",
    "Ref",
    "SessionOpened",
    "WorkerHandle",
    "engine_name",
    "fetch",
    "find_engine",
    "import_problem",
    "reason_of",
]

NAMESPACE = "magtkd"
"""Of the actors that have a name."""

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Ref(Protocol[T_co]):
    """A result that is coming (Ray's ObjectRef)."""

    def __await__(self) -> Generator[Any, None, T_co]: ...


class Method(Protocol[P, T_co]):
    """A method of an actor."""

    def remote(self, *args: P.args, **kwargs: P.kwargs) -> Ref[T_co]: ...


class TrainMethod(Protocol):
    """`Worker.train`, which returns two references; Ray resolves those that it is given."""

    def remote(
        self, request: StageRequest, names: list[str], *upstream: Ref[Artifact]
    ) -> tuple[Ref[StageDone | Failure], Ref[Artifact]]: ...


class OpenMethod(Protocol):
    """`Worker.open`; Ray resolves the references that it is given."""

    def remote(
        self, request: SessionRequest, names: list[str], *upstream: Ref[Artifact]
    ) -> Ref[WorkerSession | Failure]: ...


class WorkerHandle(Protocol):
    """A `Worker`'s."""

    @property
    def ready(self) -> Method[[], WorkerPlace]: ...
    @property
    def load(self) -> Method[[], None]: ...
    @property
    def train(self) -> TrainMethod: ...
    @property
    def open(self) -> OpenMethod: ...
    @property
    def advance(self) -> Method[[str, Sequence[int]], list[Step] | Failure | Moved]: ...
    @property
    def export(self) -> Method[[str], bytes | None]: ...
    @property
    def checkpoint(self) -> Method[[str], bytes | Moved]: ...
    @property
    def save(self) -> Method[[str], None]: ...
    @property
    def close(self) -> Method[[str], None]: ...


@dataclass(frozen=True, kw_only=True)
class SessionOpened:
    """A worker holds the trial's session, under a name that no other opening has."""

    records: dict[str, StageRecord]
    """How the trial came by each stage before fusion."""
    fusion_key: str
    reports: list[Report]
    """Of fusion's epochs so far."""
    seconds: float
    """What these took."""
    place: dict[str, Any]
    """Where they are trained, by the names of an artifact's metrics."""
    worker: WorkerHandle
    session: str


@dataclass(frozen=True, kw_only=True)
class FusionFound:
    """The trial's fusion artifact exists already."""

    records: dict[str, StageRecord]
    """How the trial came by each stage."""
    metrics: dict[str, Any]
    """The artifact's."""

    @property
    def reports(self) -> list[Report]:
        """Of all epochs."""
        return [Report(**report) for report in self.metrics["reports"]]


Opened = SessionOpened | FusionFound | Failure
"""What a trial gets when it asks for its session."""


class EngineHandle(Protocol):
    """An `Engine`'s."""

    @property
    def warm_up(self) -> Method[[int], None]: ...
    @property
    def allow(self) -> Method[[Allowance], None]: ...
    @property
    def on_progress(self) -> Method[[str, StageProgress], None]: ...
    @property
    def counts(self) -> Method[[], PoolCounts]: ...
    @property
    def describe(self) -> Method[[], EngineActivity]: ...
    @property
    def save(self) -> Method[[], int]: ...
    @property
    def end(self) -> Method[[int], None]: ...
    @property
    def open(self) -> Method[[TrialRequest], Opened]: ...
    @property
    def close(self) -> Method[[int, str], None]: ...
    @property
    def worker_died(self) -> Method[[int], None]: ...


def engine_name(sweep_id: str) -> str:
    """The name of a sweep's engine among Ray's actors in `NAMESPACE`."""
    return f"engine-{sweep_id}"


def find_engine(sweep_id: str) -> EngineHandle:
    """The engine of a sweep that runs.

    Raises:
        ValueError: there is none.
    """
    import ray

    engine: EngineHandle = ray.get_actor(engine_name(sweep_id), namespace=NAMESPACE)
    return engine


def fetch(ref: Ref[T], timeout: float | None = None) -> T:
    """The value behind a reference; waits for it.

    Raises:
        RayError: the actor died, its method raised, or the time is up.
    """
    import ray

    return cast(T, ray.get(ref, timeout=timeout))


def import_problem(error: Exception) -> str:
    """Where an actor cannot start, since what it is given cannot be imported, and why, in one line;
    empty where an error is another one. A process on the same node would fail in the same way."""
    from ray.exceptions import RayActorError

    if not (isinstance(error, RayActorError) and error.actor_init_failed):
        return ""
    # Ray keeps the reason, and the address, in its text alone.
    lines = str(error).strip().splitlines()
    if not re.match(r"ModuleNotFoundError|ImportError|AttributeError: Can't get", lines[-1]):
        return ""
    place = re.search(r"\bip=([^,)\s]+)", lines[0])
    return (
        f"node {place[1] if place else 'unknown'}: what a stage needs cannot be imported there: "
        f"{shorten(lines[-1])}; install it in the Python that runs Ray on every node"
    )


def reason_of(error: Exception) -> str:
    """Why a process died, in one line. Ray mentions a lack of memory far down in its text."""
    if re.search(r"\bOOM\b|out of memory|memory pressure", str(error)):
        return "out of memory: Ray ended it before its node had none left; ask for more memory"
    return first_line(error)
