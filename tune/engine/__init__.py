"""The engine: trains each stage once, on workers, and places fusion sessions."""

from tune.engine.actor import start_engine
from tune.engine.claims import remove_free_claims
from tune.engine.gate import Allowance
from tune.engine.handles import (
    EngineHandle,
    FusionFound,
    Opened,
    Ref,
    SessionOpened,
    WorkerHandle,
    fetch,
    find_engine,
    import_problem,
    reason_of,
)
from tune.engine.messages import (
    EngineActivity,
    Failure,
    FailureKind,
    Moved,
    PoolCounts,
    Step,
    TrialRequest,
    WantedWorkers,
    ends_batch,
)

__all__ = [
    "Allowance",
    "EngineActivity",
    "EngineHandle",
    "Failure",
    "FailureKind",
    "FusionFound",
    "Moved",
    "Opened",
    "PoolCounts",
    "Ref",
    "SessionOpened",
    "Step",
    "TrialRequest",
    "WantedWorkers",
    "WorkerHandle",
    "ends_batch",
    "fetch",
    "find_engine",
    "import_problem",
    "reason_of",
    "remove_free_claims",
    "start_engine",
]
