"""The engine as a Ray actor: starting it beside the driver, and finding it by its sweep."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

from magtkd.pipeline import Source
from magtkd.store import Store
from tune.cluster import driver_node
from tune.config import SweepOptions
from tune.engine.engine import Engine
from tune.engine.handles import EngineHandle

__all__ = ["EngineActor", "find_engine", "start_engine"]

NAMESPACE = "magtkd"

EngineActor: Any = ray.remote(max_restarts=-1, max_task_retries=-1, num_cpus=0)(Engine)


def _actor_name(sweep_id: str) -> str:
    return f"engine-{sweep_id}"


@contextmanager
def start_engine(source: Source, sweep_id: str, options: SweepOptions) -> Iterator[EngineHandle]:
    """A sweep's engine on the driver's node, for as long as the block lasts."""
    engine = EngineActor.options(
        name=_actor_name(sweep_id), namespace=NAMESPACE, scheduling_strategy=driver_node()
    ).remote(
        Store(options.storage).address,
        source,
        sweep_id,
        reuse=options.reuse,
        max_failures=options.max_failures,
        trainer=options.trainer,
    )
    try:
        yield engine
    finally:
        ray.kill(engine)  # and with it its workers, which it owns


def find_engine(sweep_id: str) -> EngineHandle:
    """The engine of a sweep that runs.

    Raises:
        ValueError: there is none.
    """
    engine: EngineHandle = ray.get_actor(_actor_name(sweep_id), namespace=NAMESPACE)
    return engine
