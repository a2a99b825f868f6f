"""The engine: one named Ray actor that knows which stages exist, which are being trained, and which
trials wait for them.

It holds nothing that cannot be rebuilt from the store. A stage that several trials need is trained
once; the others wait for it.
"""

from __future__ import annotations

import asyncio
import math
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

import ray

from magtkd.config import Config, Resources
from magtkd.errors import ArtifactError
from magtkd.pipeline import CORE_TRAINER, Plan, Source, StageRecord, Trainer, make_plan
from magtkd.store import Artifact, Store
from tune.cluster import Shape, shape_of
from tune.engine.handles import FusionFound, Opened, Ref, SessionOpened, WorkerHandle
from tune.engine.messages import (
    EngineActivity,
    Failure,
    FailureKind,
    PoolCounts,
    SessionRequest,
    TrialRequest,
    WorkerSession,
)
from tune.engine.pool import Pool, PoolWorker, WorkerDiedError
from tune.engine.turns import FusionTurns
from tune.engine.upstream import PlannedTrial, StageFailedError, Upstream, found_record
from tune.engine.worker import WorkerActor
from tune.ledger import session_name, sessions_folder

__all__ = ["Engine"]


@dataclass(frozen=True)
class _Held:
    """A session on a worker, and a call that lets the next trial with the same fusion begin."""

    worker: PoolWorker
    session: str
    end_turn: Callable[[], None]


class Engine:
    """Trains what is missing, once, and places sessions on workers.

    Args:
        storage: address of the store.
        source: fingerprint and modalities of the table.
        sweep_id: the sweep, for the names of its checkpoints.
        reuse: look for artifacts, and share what is trained between trials.
        max_failures: how often the work of a worker that died is retried.
        trainer: opens sessions; see `Worker`.
    """

    def __init__(
        self,
        storage: str,
        source: Source,
        sweep_id: str,
        *,
        reuse: bool = True,
        max_failures: int = 3,
        trainer: Trainer = CORE_TRAINER,
    ) -> None:
        self._store = Store(storage)
        self._source, self._sweep_id, self._reuse = source, sweep_id, reuse
        self._max_failures, self._trainer = max_failures, trainer
        self._totals, self._totals_time = dict[str, float](), -math.inf
        self._pool = Pool(self._start_worker, ray.kill, self._cluster_totals)
        self._warnings: list[str] = []
        self._upstream = Upstream(
            self._store,
            self._pool,
            sweep_id,
            reuse=reuse,
            max_failures=max_failures,
            warn=self._warnings.append,
        )
        self._turns = FusionTurns(self._store)
        self._held: dict[int, _Held] = {}
        self._latest: dict[int, str] = {}
        self._doing: dict[int, str] = {}
        self._sweeper: asyncio.Task[None] | None = None

    def _cluster_totals(self) -> dict[str, float]:
        """The cluster's resources, asked at most once a second: asking holds up the event loop."""
        if time.monotonic() - self._totals_time > 1.0:
            self._totals, self._totals_time = ray.cluster_resources(), time.monotonic()
        return self._totals

    def _start_worker(self, shape: Shape) -> WorkerHandle:
        amounts = dict(shape)
        handle: WorkerHandle = WorkerActor.options(
            num_cpus=amounts.get("CPU", 0),
            num_gpus=amounts.get("GPU", 0),
            memory=amounts.get("memory"),
        ).remote(
            self._store.address,
            Resources(cpu=amounts["CPU"]).num_threads,
            self._trainer,
            self._sweep_id,
        )
        return handle

    # --- what the driver calls ----------------------------------------------------------------

    async def warm_up(self, config: Config, num_workers: int) -> None:
        """Start workers while the first trials are still being set up."""
        self._pool.warm_up(shape_of(config.resources.fusion), num_workers)

    async def counts(self) -> PoolCounts:
        """What the workers do, and how many requests wait."""
        return self._pool.counts()

    async def describe(self) -> EngineActivity:
        """What each trial does or waits for, and what the workers do."""
        trials = dict.fromkeys(self._held, "trains fusion") | self._doing
        for number in list(trials):
            trials[number] = self._upstream.waits_for(number) or trials[number]
        return EngineActivity(
            trials=trials, workers=self._pool.counts(), warnings=list(self._warnings)
        )

    async def save(self) -> int:
        """Write a checkpoint of each session at the end of its epoch; how many could not be."""
        calls = [held.worker.handle.save.remote(held.session) for held in self._held.values()]
        results = await asyncio.gather(*calls, return_exceptions=True)
        return sum(isinstance(result, BaseException) for result in results)

    async def end(self, trial: int) -> None:
        """A trial has ended: close its session, and remove its checkpoints."""
        await self.close(trial)
        folder = sessions_folder(self._sweep_id, trial)
        await asyncio.to_thread(self._store.remove_folder, folder)

    # --- what trials call ---------------------------------------------------------------------

    async def open(self, request: TrialRequest) -> Opened:
        """Everything a trial needs for its next epoch; waits until it is there."""
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().create_task(self._end_idle_workers())
        trial = request.trial
        await self._save_and_close(trial)  # an actor of this trial that died may have left one open
        session = self._latest[trial] = uuid.uuid4().hex
        asking = PlannedTrial(trial, request.config, make_plan(request.config, self._source))
        plan = asking.plan
        key = plan.fusion_key if self._reuse and not request.needs_session else None
        self._doing[trial] = "waits for a trial that trains the same fusion"
        end_turn = await self._turns.take(key)
        try:
            if key is not None and (found := await self._reused(plan)) is not None:
                end_turn()
                return found
            opened, worker = await self._open_session(asking, session, request)
        except StageFailedError as error:
            end_turn()
            return error.failure
        except BaseException:
            end_turn()
            raise
        finally:
            self._doing.pop(trial, None)
        held = _Held(worker, session, end_turn)
        if self._latest.get(trial) == session:
            self._held[trial] = held
        else:  # the trial ended, or was opened again, while its stages were being trained
            await self._end_session(held)
        return opened

    async def close(self, trial: int, session: str | None = None) -> None:
        """End a trial's session, if it has one; where one is named, that one and no later one."""
        if session is not None and self._latest.get(trial) != session:
            return
        self._latest.pop(trial, None)
        if trial in self._held:
            await self._end_session(self._held.pop(trial))

    async def worker_died(self, trial: int) -> None:
        """A trial found its worker gone."""
        if trial in self._held:
            held = self._held.pop(trial)
            self._pool.discard(held.worker)
            held.end_turn()
            await self._pool.discard_dead()

    async def _save_and_close(self, trial: int) -> None:
        if (held := self._held.get(trial)) is not None:
            await asyncio.gather(
                held.worker.handle.save.remote(held.session), return_exceptions=True
            )
        await self.close(trial)

    async def _end_session(self, held: _Held) -> None:
        closing = held.worker.handle.close.remote(held.session)
        self._pool.release(held.worker, held.session)
        held.end_turn()
        await asyncio.gather(closing, return_exceptions=True)

    # --- fusion -------------------------------------------------------------------------------

    async def _reused(self, plan: Plan) -> FusionFound | None:
        """What a trial gets whose fusion artifact exists."""
        found = await asyncio.to_thread(
            self._store.find, "fusion", plan.fusion_key, warn=self._warnings.append
        )
        if found is None:
            return None
        records = await asyncio.to_thread(self._records_of, plan)
        return FusionFound(records=records, metrics=found.metrics)

    def _records_of(self, plan: Plan) -> dict[str, StageRecord]:
        """All stages as found; what one saved whose artifact was deleted is not known."""
        records = {}
        for stage, key in plan.keys.items():
            try:
                metrics = self._store.read_metrics(stage, key)
            except ArtifactError:
                metrics = {}
            records[stage] = found_record(key, metrics, self._sweep_id)
        return records

    async def _open_session(
        self, asking: PlannedTrial, session: str, request: TrialRequest
    ) -> tuple[SessionOpened, PoolWorker]:
        trial, config, plan = asking.trial, asking.config, asking.plan
        shape = shape_of(config.resources.fusion)
        wanted = SessionRequest(
            session=session,
            config=config,
            plan=plan,
            checkpoint_name=session_name(self._sweep_id, trial, request.name),
            checkpoint=request.checkpoint,
        )

        async def work(
            names: list[str], tables: list[Ref[Artifact]]
        ) -> tuple[PoolWorker, WorkerSession | Failure]:
            async def open_on(handle: WorkerHandle) -> WorkerSession | Failure:
                self._doing[trial] = "opens its fusion session"
                return await handle.open.remote(wanted, names, *tables)

            self._doing[trial] = "waits for a worker"
            return await self._pool.on_worker(shape, open_on, self._max_failures, session)

        try:
            (worker, held), records = await self._upstream.given(asking, plan.upstream, work)
        except WorkerDiedError as error:
            failure = Failure(FailureKind.FAILED, f"fusion: {error}")
            raise StageFailedError(failure) from None
        if isinstance(held, Failure):
            self._pool.release(worker, session)
            raise StageFailedError(held)
        opened = SessionOpened(
            records=records,
            fusion_key=plan.fusion_key,
            reports=held.reports,
            seconds=held.seconds,
            worker=worker.handle,
            session=session,
        )
        return opened, worker

    async def _end_idle_workers(self) -> None:
        while True:
            await asyncio.sleep(2)
            self._pool.end_idle()
            await self._pool.discard_dead()
