"""Upstream stages: each is trained once; requests for it that come meanwhile wait."""

from __future__ import annotations

import asyncio
import functools
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import ray
from ray.exceptions import ObjectLostError

from magtkd.config import Config
from magtkd.pipeline import (
    STAGES,
    Outcome,
    Plan,
    StageRecord,
    find_stage,
    reused_record,
    train_stage,
    trained_record,
)
from magtkd.store import Artifact, Store
from tune.cluster import shape_of
from tune.engine.claims import claim
from tune.engine.gate import Gate
from tune.engine.handles import Ref
from tune.engine.messages import (
    Failure,
    FailureKind,
    StageDone,
    StageProgress,
    StageRequest,
    failure_of,
)
from tune.engine.pool import Pool, WorkerDiedError
from tune.engine.pool_worker import PoolWorker

__all__ = [
    "Made",
    "PlannedTrial",
    "StageFailedError",
    "Upstream",
    "found_record",
]

T = TypeVar("T")
Trained = tuple[StageDone | Failure, Ref[Artifact]]

TABLE_BYTES = 2 << 30
"""Tables that stay in the object store for trials to come."""


@dataclass(frozen=True)
class Made:
    """A stage that is there: its artifact in the object store, without weights, and its record."""

    table: Ref[Artifact]
    record: StageRecord
    num_bytes: int

    @property
    def seconds(self) -> float:
        """What its training took, whenever that was."""
        return self.record.seconds or self.record.saved or 0.0


def found_record(key: str, metrics: Mapping[str, Any], sweep_id: str) -> StageRecord:
    """The record of a stage whose artifact was found: `reused`, or `recovered` where this sweep
    trained it itself. If the ledger does not know of that yet, the training still counts.

    Args:
        key: its key.
        metrics: the artifact's metrics; empty where it is gone.
        sweep_id: the sweep.
    """
    if metrics.get("seconds") is not None and metrics.get("sweep") == sweep_id:
        return replace(trained_record(key, metrics), outcome=Outcome.RECOVERED)
    return reused_record(key, metrics)


@dataclass(frozen=True)
class PlannedTrial:
    """A trial that asks for stages: its number, its configuration, and the plan of this."""

    trial: int
    config: Config
    plan: Plan


class StageFailedError(Exception):
    """A stage failed, for all trials that need it."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Upstream:
    """Which upstream stages exist, which are being made, and which trials wait for them.

    Args:
        store: where artifacts are looked for and written.
        pool: gives workers.
        gate: says which stages may begin.
        sweep_id: the sweep, to recognise what it trained itself before its driver or engine died.
        reuse: look for artifacts, and share what is trained between trials.
        max_failures: how often the work of a worker that died is retried.
        warn: called with one line that a person should know.
    """

    def __init__(
        self,
        store: Store,
        pool: Pool,
        gate: Gate,
        sweep_id: str,
        *,
        reuse: bool,
        max_failures: int,
        warn: Callable[[str], None],
    ) -> None:
        self._store, self._pool, self._gate = store, pool, gate
        self._sweep_id, self._reuse = sweep_id, reuse
        self._max_failures, self._warn = max_failures, warn
        self._tasks: OrderedDict[tuple[int | None, str, str], asyncio.Task[Made]] = OrderedDict()
        self._table_bytes = 0
        self._phases: dict[str, tuple[str, float]] = {}
        self._progress: dict[str, StageProgress] = {}
        self._waiting: dict[int, dict[str, str]] = {}

    async def given(
        self,
        asking: PlannedTrial,
        stages: tuple[str, ...],
        work: Callable[[list[str], list[Ref[Artifact]]], Awaitable[T]],
    ) -> tuple[T, dict[str, StageRecord]]:
        """Do work that needs stages, as soon as all are there.

        Args:
            asking: the trial that asks.
            stages: the stages that are needed.
            work: gets their names and their tables.

        Returns:
            what the work gave, and how this trial came by each stage.

        Raises:
            StageFailedError: one of the stages failed.
        """
        first: dict[str, StageRecord] = {}
        for attempt in range(self._max_failures + 1):
            made = await asyncio.gather(*(self._stage(asking, stage) for stage in stages))
            first = {stage: record for stage, (_, record) in zip(stages, made, strict=True)} | first
            try:
                return await work(list(stages), [one.table for one, _ in made]), first
            except ObjectLostError:  # a node died that held a table; the store has it still
                if attempt == self._max_failures:
                    raise
                self._forget(asking, stages)
        raise AssertionError

    def waits_for(self, trial: int) -> str | None:
        """The first stage that a trial waits for, and what becomes of it; None if it does not."""
        waiting = self._waiting.get(trial) or {}
        for stage in STAGES:
            if stage in waiting:
                key = waiting[stage]
                phase, since = self._phases.get(key, ("", 0.0))
                if not phase:
                    return f"waits for {stage} {key[:8]}"
                if (progress := self._progress.get(key)) is not None:
                    phase = f"{phase}, {progress}"
                passed = f"{phase} for {time.monotonic() - since:.0f} s"
                return f"waits for {stage} {key[:8]} ({passed})"
        return None

    def on_progress(self, key: str, progress: StageProgress) -> None:
        """A worker finished an epoch of a stage."""
        if key in self._phases:
            self._progress[key] = progress

    async def _stage(self, asking: PlannedTrial, stage: str) -> tuple[Made, StageRecord]:
        """A stage, made by the first trial that asks; the record is this trial's own."""
        trial, key = asking.trial, self._task_key(asking, stage)
        task = self._tasks.get(key)
        is_first = task is None
        if task is None:
            task = asyncio.get_running_loop().create_task(self._make(asking, stage))
            self._tasks[key] = task
        self._tasks.move_to_end(key)
        waiting = self._waiting.setdefault(trial, {})
        waiting[stage] = asking.plan.keys[stage]
        try:
            made = await asyncio.shield(task)
        finally:
            waiting.pop(stage, None)
            if not waiting:
                self._waiting.pop(trial, None)
        if is_first:
            self._table_bytes += made.num_bytes
            self._drop_old_tables()
            return made, made.record
        reused = StageRecord(
            asking.plan.keys[stage],
            Outcome.REUSED,
            0.0,
            made.seconds,
            device=made.record.device,
            share=made.record.share,
        )
        return made, reused

    def _task_key(self, asking: PlannedTrial, stage: str) -> tuple[int | None, str, str]:
        return None if self._reuse else asking.trial, stage, asking.plan.keys[stage]

    async def _make(self, asking: PlannedTrial, stage: str) -> Made:
        key = asking.plan.keys[stage]
        if not self._reuse:
            return await self._train(asking, stage)
        if (found := await self._find(stage, key)) is not None:
            return found
        release = await claim(
            self._store, stage, key, lambda: self._enter(key, "another sweep trains it")
        )
        try:
            return await self._find(stage, key) or await self._train(asking, stage)
        finally:
            self._phases.pop(key, None)
            release()

    async def _find(self, stage: str, key: str) -> Made | None:
        find = functools.partial(self._store.find, weights=False, warn=self._warn)
        artifact = await asyncio.to_thread(find, stage, key)
        if artifact is None:
            return None
        return self._put(artifact, found_record(key, artifact.metrics, self._sweep_id))

    async def _train(self, asking: PlannedTrial, stage: str) -> Made:
        config, plan = asking.config, asking.plan
        resources = find_stage(stage).resources(config)
        if resources is None:
            return await self._make_here(asking, stage)
        key, shape = plan.keys[stage], shape_of(resources)
        request = StageRequest(stage=stage, config=config, plan=plan, is_shared=self._reuse)

        name = (asking.trial, key)

        async def work(names: list[str], tables: list[Ref[Artifact]]) -> Trained:
            async def train(worker: PoolWorker) -> Trained | None:
                if not self._gate.begin(name, key):
                    return None
                self._progress.pop(key, None)
                self._enter(key, f"training on {worker.host}")
                done, table = worker.handle.train.remote(request, names, *tables)
                return await done, table

            while True:
                await self._gate.wait(key, say_withheld)
                self._enter(key, "waits for a worker")
                worker, result = await self._pool.on_worker(shape, train, self._max_failures)
                self._pool.release(worker)
                if result is not None:
                    return result

        def say_withheld() -> None:
            self._enter(key, "not begun, as it would not end within the budget,")

        try:
            (outcome, table), _ = await self.given(asking, plan.reads[stage], work)
        except WorkerDiedError as error:
            raise StageFailedError(Failure(FailureKind.FAILED, f"{stage}: {error}")) from None
        finally:
            self._gate.end(name)
            self._phases.pop(key, None)
            self._progress.pop(key, None)
        if isinstance(outcome, Failure):
            raise StageFailedError(outcome)
        for warning in outcome.warnings:
            self._warn(warning)
        return Made(table, outcome.record, outcome.num_bytes)

    async def _make_here(self, asking: PlannedTrial, stage: str) -> Made:
        """Make a stage that asks for no resources, and reads no other, in this process."""
        try:
            artifact = await asyncio.to_thread(train_stage, stage, asking.config, asking.plan, {})
            artifact.metrics["sweep"] = self._sweep_id
            await asyncio.to_thread(self._store.write, artifact)
        except Exception as error:
            raise StageFailedError(failure_of(stage, error)) from error
        return self._put(
            artifact, StageRecord(artifact.key, Outcome.TRAINED, artifact.metrics["seconds"])
        )

    @staticmethod
    def _put(artifact: Artifact, record: StageRecord) -> Made:
        return Made(ray.put(artifact), record, artifact.table.nbytes)

    def _enter(self, key: str, phase: str) -> None:
        self._phases[key] = (phase, time.monotonic())

    def _forget(self, asking: PlannedTrial, stages: tuple[str, ...]) -> None:
        for stage in stages:
            key = self._task_key(asking, stage)
            if (task := self._tasks.get(key)) is not None and task.done():
                del self._tasks[key]

    def _drop_old_tables(self) -> None:
        """Forget the tables used longest ago; the store still has them."""
        for key, task in list(self._tasks.items()) if self._too_many_tables else ():
            if self._too_many_tables and task.done() and task.exception() is None:
                del self._tasks[key]
                self._table_bytes -= task.result().num_bytes

    @property
    def _too_many_tables(self) -> bool:
        return self._table_bytes > TABLE_BYTES
