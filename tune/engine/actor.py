"""The engine as a Ray actor: starting it beside the driver."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ray

from magtkd.config import Config
from magtkd.pipeline import Source
from magtkd.store import Store
from tune.cluster import Need, driver_node
from tune.config import SweepOptions
from tune.engine.handles import NAMESPACE, EngineHandle, engine_name

__all__ = ["start_engine"]


@contextmanager
def start_engine(
    base: Config,
    source: Source,
    sweep_id: str,
    options: SweepOptions,
    *,
    token_name: str | None = None,
    needs: Sequence[Need] = (),
) -> Iterator[EngineHandle]:
    """A sweep's engine on the driver's node, for as long as the block lasts."""
    # Trials import this package, and must stay small.
    from tune.engine.engine import Engine

    actor: Any = ray.remote(max_restarts=-1, max_task_retries=-1, num_cpus=0)(Engine)
    engine = actor.options(
        name=engine_name(sweep_id), namespace=NAMESPACE, scheduling_strategy=driver_node()
    ).remote(
        Store(options.storage).address,
        base,
        source,
        sweep_id,
        reuse=options.reuse,
        max_failures=options.max_failures,
        trainer=options.trainer,
        token_name=token_name,
        needs=needs,
    )
    try:
        yield engine
    finally:
        ray.kill(engine)  # and with it its workers, which it owns
