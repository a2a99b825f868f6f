"""The engine: one named Ray actor that knows which stages exist, which are being trained, and who
waits for them.

It holds nothing that cannot be rebuilt from the store. A stage that several trials need is trained
once; the others wait for it.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayActorError

from magtkd.artifacts import Artifact, Store
from magtkd.config import Config, Resources
from magtkd.errors import ArtifactError
from magtkd.pipeline import Plan, Source, StageRecord, make_plan, train_stage
from tune.pool import Pool, PoolWorker, Shape, shape_of
from tune.workers import Failure, StageDone, WorkerActor, failure_of

__all__ = ["ENGINE_NAMESPACE", "Engine", "EngineActor", "Opened", "engine_name"]

ENGINE_NAMESPACE = "magtkd"
TABLE_BYTES = 2 << 30
"""Tables that stay in the object store for trials to come."""


def engine_name(sweep_id: str) -> str:
    """The name of a sweep's engine."""
    return f"engine-{sweep_id}"


@dataclass(frozen=True)
class Opened:
    """What a trial gets: its stages' records, and either a worker that holds its session, under a
    name that no other opening has, or the metrics of a fusion artifact that exists already, or a
    failure."""

    records: dict[str, StageRecord]
    worker: Any = None
    session: str = ""
    epoch: int = 0
    metrics: dict[str, Any] | None = None
    failure: Failure | None = None
    fusion_key: str = ""


@dataclass(frozen=True)
class _Made:
    """A stage that is there: its table in the object store, and how it came about."""

    table: Any
    record: StageRecord
    num_bytes: int

    @property
    def seconds(self) -> float:
        """What training it took, whenever that was."""
        return self.record.seconds or self.record.saved or 0.0


class _StageFailedError(Exception):
    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Engine:
    """Trains what is missing, once, and places sessions on workers.

    Args:
        storage: address of the store.
        source: fingerprint and modalities of the table.
        reuse: look for artifacts, and share what is trained between trials.
        max_failures: how often the work of a worker that died is done again.
        stages: the module that trains; see `Worker`.
    """

    def __init__(
        self,
        storage: str,
        source: Source,
        reuse: bool = True,
        max_failures: int = 3,
        stages: str = "magtkd.stages",
    ) -> None:
        self._store = Store(storage)
        self._source, self._reuse = source, reuse
        self._max_failures, self._stages = max_failures, stages
        self._totals, self._totals_time = dict[str, float](), -math.inf
        self._pool = Pool(self._start_worker, ray.kill, self._cluster_totals)
        self._stages_made: OrderedDict[tuple[str, str, str], asyncio.Task[_Made]] = OrderedDict()
        self._sessions: dict[str, tuple[PoolWorker, str, str | None]] = {}
        self._fusion_ends: dict[str, asyncio.Event] = {}
        self._latest: dict[str, str] = {}
        self._num_opened = 0
        self._table_bytes = 0
        self._sweeper: asyncio.Task[None] | None = None

    def _cluster_totals(self) -> dict[str, float]:
        """The cluster's resources, asked at most once a second: asking holds up the event loop."""
        if time.monotonic() - self._totals_time > 1.0:
            self._totals, self._totals_time = ray.cluster_resources(), time.monotonic()
        return self._totals

    def _start_worker(self, shape: Shape) -> Any:
        amounts = dict(shape)
        return WorkerActor.options(
            num_cpus=amounts.get("CPU", 0),
            num_gpus=amounts.get("GPU", 0),
            memory=amounts.get("memory"),
        ).remote(self._store.address, Resources(cpu=amounts["CPU"]).num_threads, self._stages)

    async def warm_up(self, config: Config, num_workers: int) -> None:
        """Start workers while the first trials are still being set up."""
        self._pool.warm_up(shape_of(config.resources.fusion), num_workers)

    # --- what trials call ---------------------------------------------------------------------

    async def open(
        self,
        trial: str,
        config: Config,
        exported: bytes | None = None,
        needs_session: bool = False,
    ) -> Opened:
        """Everything a trial needs for its first epoch; waits until it is there.

        Args:
            trial: the trial's identity, for sessions and for stages that are not shared.
            config: its configuration.
            exported: a session to go on from.
            needs_session: open a session even where the fusion artifact exists, for a trial whose
                session others may go on from.
        """
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().create_task(self._end_idle_workers())
        await self.close(trial)  # an actor of this trial that died may have left one open
        self._num_opened += 1
        session = self._latest[trial] = f"{trial}-{self._num_opened}"
        plan = make_plan(config, self._source)
        key = plan.keys["fusion"] if self._reuse and not needs_session else None
        await self._wait_for_fusion(key)
        try:
            if key is not None and self._store.exists("fusion", key):
                return await self._reused(plan)
            opened, worker = await self._open_session(trial, session, config, plan, exported)
        except _StageFailedError as error:
            self._end_fusion(key)
            return Opened({}, failure=error.failure)
        except BaseException:
            self._end_fusion(key)
            raise
        if self._latest.get(trial) == session:
            self._sessions[trial] = (worker, session, key)
        else:  # the trial ended, or was opened anew, while its stages were being trained
            self._end_session(worker, session, key)
        return opened

    async def close(self, trial: str, session: str | None = None) -> None:
        """End a trial's session, if it has one; where one is named, that one and no later one."""
        if session is not None and self._latest.get(trial) != session:
            return
        self._latest.pop(trial, None)
        if trial in self._sessions:
            self._end_session(*self._sessions.pop(trial))

    def _end_session(self, worker: PoolWorker, session: str, key: str | None) -> None:
        worker.handle.close.remote(session)
        self._pool.release(worker, session)
        self._end_fusion(key)

    async def worker_died(self, trial: str) -> None:
        """A trial found its worker gone."""
        if trial in self._sessions:
            worker, _, key = self._sessions.pop(trial)
            self._pool.discard(worker)
            self._end_fusion(key)

    async def counts(self) -> dict[str, int]:
        """What the workers do, and how many requests wait."""
        return self._pool.counts()

    # --- fusion -------------------------------------------------------------------------------

    async def _wait_for_fusion(self, key: str | None) -> None:
        """Two trials with one configuration: the second waits, and finds the first's artifact.
        A key of None shares nothing."""
        while key in self._fusion_ends:
            await self._fusion_ends[key].wait()
        if key is not None:
            self._fusion_ends[key] = asyncio.Event()

    def _end_fusion(self, key: str | None) -> None:
        if key is not None and (event := self._fusion_ends.pop(key, None)) is not None:
            event.set()

    async def _reused(self, plan: Plan) -> Opened:
        metrics = await asyncio.to_thread(self._metrics_of, plan)
        self._end_fusion(plan.keys["fusion"])
        records = {
            stage: StageRecord(key, "reused", 0.0, metrics[stage].get("seconds"))
            for stage, key in plan.keys.items()
        }
        return Opened(records, metrics=metrics["fusion"], fusion_key=plan.keys["fusion"])

    def _metrics_of(self, plan: Plan) -> dict[str, dict[str, Any]]:
        """The metrics of each stage's artifact; none for one that somebody deleted."""
        return {
            stage: self._store.read_metrics(stage, key) if self._store.exists(stage, key) else {}
            for stage, key in plan.keys.items()
        }

    async def _open_session(
        self, trial: str, session: str, config: Config, plan: Plan, exported: bytes | None
    ) -> tuple[Opened, PoolWorker]:
        made, records = await self._made(trial, config, plan, plan.upstream)
        names, tables = list(made), [entry.table for entry in made.values()]
        shape = shape_of(config.resources.fusion)

        async def attempt() -> tuple[PoolWorker, int | Failure]:
            worker = await self._pool.acquire(shape, session)
            try:
                answer = await worker.handle.open.remote(
                    session, config, plan, exported, names, *tables
                )
            except RayActorError:
                self._pool.discard(worker)
                raise
            return worker, answer

        worker, epoch = await self._retried("fusion", attempt)
        if isinstance(epoch, Failure):
            self._pool.release(worker, session)
            raise _StageFailedError(epoch)
        opened = Opened(
            records,
            worker=worker.handle,
            session=session,
            epoch=epoch,
            fusion_key=plan.keys["fusion"],
        )
        return opened, worker

    # --- upstream stages ----------------------------------------------------------------------

    async def _made(
        self, trial: str, config: Config, plan: Plan, stages: tuple[str, ...]
    ) -> tuple[dict[str, _Made], dict[str, StageRecord]]:
        results = await asyncio.gather(
            *(self._stage(trial, config, plan, stage) for stage in stages)
        )
        made = {stage: entry for stage, (entry, _) in zip(stages, results, strict=True)}
        records = {stage: record for stage, (_, record) in zip(stages, results, strict=True)}
        return made, records

    async def _stage(
        self, trial: str, config: Config, plan: Plan, stage: str
    ) -> tuple[_Made, StageRecord]:
        """A stage, from whoever makes it first; the record is this trial's own."""
        key = ("" if self._reuse else trial, stage, plan.keys[stage])
        task = self._stages_made.get(key)
        is_first = task is None
        if task is None:
            task = asyncio.get_running_loop().create_task(self._make(trial, config, plan, stage))
            self._stages_made[key] = task
        self._stages_made.move_to_end(key)
        made = await asyncio.shield(task)
        if is_first:
            self._table_bytes += made.num_bytes
            self._drop_old_tables()
            return made, made.record
        return made, StageRecord(plan.keys[stage], "reused", 0.0, made.seconds)

    async def _make(self, trial: str, config: Config, plan: Plan, stage: str) -> _Made:
        key = plan.keys[stage]
        if self._reuse and (found := await asyncio.to_thread(self._load, stage, key)) is not None:
            record = StageRecord(key, "reused", 0.0, found.metrics["seconds"])
            return _Made(ray.put(found), record, found.table.nbytes)
        if stage == "data":
            return await self._prepare_data(config, plan)
        made, _ = await self._made(trial, config, plan, plan.reads[stage])
        names, tables = list(made), [entry.table for entry in made.values()]
        shape = shape_of(getattr(config.resources, stage))

        async def attempt() -> tuple[StageDone | Failure, Any]:
            worker = await self._pool.acquire(shape)
            done, table = worker.handle.train.remote(stage, config, plan, names, *tables)
            try:
                outcome = await done
            except RayActorError:
                self._pool.discard(worker)
                raise
            self._pool.release(worker)
            return outcome, table

        outcome, table = await self._retried(stage, attempt)
        if isinstance(outcome, Failure):
            raise _StageFailedError(outcome)
        return _Made(table, StageRecord(key, "trained", outcome.seconds), outcome.num_bytes)

    async def _prepare_data(self, config: Config, plan: Plan) -> _Made:
        try:
            artifact = await asyncio.to_thread(train_stage, "data", config, plan, {})
            await asyncio.to_thread(self._store.write, artifact)
        except Exception as error:
            raise _StageFailedError(failure_of("data", error)) from error
        record = StageRecord(plan.keys["data"], "trained", artifact.metrics["seconds"])
        return _Made(ray.put(artifact), record, artifact.table.nbytes)

    def _load(self, stage: str, key: str) -> Artifact | None:
        if not self._store.exists(stage, key):
            return None
        try:
            return self._store.read(stage, key, weights=False)
        except ArtifactError as error:
            raise _StageFailedError(Failure("failed", f"{stage}: {error}")) from error

    async def _retried(self, stage: str, attempt: Callable[[], Awaitable[Any]]) -> Any:
        for _ in range(self._max_failures + 1):
            try:
                return await attempt()
            except RayActorError as error:
                last = error
        reason = str(last).splitlines()[0]
        raise _StageFailedError(
            Failure("failed", f"{stage}: its worker died {self._max_failures + 1} times: {reason}")
        )

    def _drop_old_tables(self) -> None:
        """Forget the tables used longest ago; the store still has them."""
        for key, task in list(self._stages_made.items()) if self._too_many_tables else ():
            if self._too_many_tables and task.done() and task.exception() is None:
                del self._stages_made[key]
                self._table_bytes -= task.result().num_bytes

    @property
    def _too_many_tables(self) -> bool:
        return self._table_bytes > TABLE_BYTES

    async def _end_idle_workers(self) -> None:
        while True:
            await asyncio.sleep(2)
            self._pool.end_idle()


EngineActor: Any = ray.remote(max_restarts=-1, max_task_retries=-1, num_cpus=0)(Engine)
