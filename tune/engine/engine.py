"""The engine: one named Ray actor that knows which stages exist, which are being trained, and who
waits for them.

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
from typing import Any

import ray

from magtkd.config import Config, Resources
from magtkd.errors import ArtifactError
from magtkd.pipeline import CORE_TRAINER, Plan, Source, StageRecord, Trainer, make_plan
from magtkd.store.store import Store
from tune.engine.claims import claim
from tune.engine.pool import Pool, PoolWorker, Shape, WorkerDiedError, shape_of
from tune.engine.upstream import StageFailedError, Upstream, found_record
from tune.engine.worker import Failure, WorkerActor

__all__ = ["ENGINE_NAMESPACE", "Engine", "EngineActor", "Opened", "engine_name"]

ENGINE_NAMESPACE = "magtkd"


def engine_name(sweep_id: str) -> str:
    """The name of a sweep's engine."""
    return f"engine-{sweep_id}"


@dataclass(frozen=True)
class Opened:
    """What a trial gets: its stages' records, fusion's `reports` so far and the `seconds` that they
    took, and either a worker that holds its session, under a name that no other opening has, or the
    metrics of a fusion artifact that exists already, or a failure."""

    records: dict[str, StageRecord]
    reports: list[dict[str, Any]]
    seconds: float = 0.0
    worker: Any = None
    session: str = ""
    metrics: dict[str, Any] | None = None
    failure: Failure | None = None
    fusion_key: str = ""


@dataclass(frozen=True)
class _Held:
    """A session on a worker, and what lets the next trial with the same fusion have its turn."""

    worker: PoolWorker
    session: str
    end_turn: Callable[[], None]


class Engine:
    """Trains what is missing, once, and places sessions on workers.

    Args:
        storage: address of the store.
        source: fingerprint and modalities of the table.
        sweep_id: the sweep, for the names of exported sessions.
        reuse: look for artifacts, and share what is trained between trials.
        max_failures: how often the work of a worker that died is done again.
        trainer: opens sessions; see `Worker`.
    """

    def __init__(
        self,
        storage: str,
        source: Source,
        sweep_id: str,
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
            self._store, self._pool, sweep_id, reuse, max_failures, self._warnings.append
        )
        self._held: dict[int, _Held] = {}
        self._latest: dict[int, str] = {}
        self._doing: dict[int, str] = {}
        self._fusion_ends: dict[str, asyncio.Event] = {}
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
        ).remote(
            self._store.address,
            Resources(cpu=amounts["CPU"]).num_threads,
            self._trainer,
            self._sweep_id,
        )

    # --- what the driver calls ----------------------------------------------------------------

    async def warm_up(self, config: Config, num_workers: int) -> None:
        """Start workers while the first trials are still being set up."""
        self._pool.warm_up(shape_of(config.resources.fusion), num_workers)

    async def counts(self) -> dict[str, int]:
        """What the workers do, and how many requests wait."""
        return self._pool.counts()

    async def describe(self) -> dict[str, Any]:
        """What each trial does or waits for, what the workers do, and what went wrong so far that a
        person should know."""
        trials = dict.fromkeys(self._held, "trains fusion") | self._doing
        for number in list(trials):
            trials[number] = self._upstream.waits_for(number) or trials[number]
        workers = self._pool.counts()
        return {"trials": trials, "workers": workers, "warnings": list(self._warnings)}

    async def save(self) -> int:
        """Export all sessions as soon as their epoch is over; how many could not be."""
        calls = [held.worker.handle.save.remote(held.session) for held in self._held.values()]
        results = await asyncio.gather(*calls, return_exceptions=True)
        return sum(isinstance(result, BaseException) for result in results)

    async def end(self, trial: int) -> None:
        """A trial has ended: close its session, and remove what was exported of it."""
        await self.close(trial)
        await asyncio.to_thread(self._store.remove_folder, f"sessions/{self._exports}/{trial}")

    # --- what trials call ---------------------------------------------------------------------

    async def open(
        self,
        trial: int,
        config: Config,
        lineage: str = "0",
        exported: bytes | None = None,
        needs_session: bool = False,
    ) -> Opened:
        """Everything a trial needs for its next epoch; waits until it is there.

        Args:
            trial: its number.
            config: its configuration.
            lineage: tells apart what population based training made of one trial.
            exported: a session to go on from, instead of the last one exported.
            needs_session: open a session even where the fusion artifact exists, for a trial whose
                session others may go on from.
        """
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().create_task(self._end_idle_workers())
        await self._save_and_close(trial)  # an actor of this trial that died may have left one open
        session = self._latest[trial] = uuid.uuid4().hex
        plan = make_plan(config, self._source)
        key = plan.keys["fusion"] if self._reuse and not needs_session else None
        end_turn = await self._fusion_turn(trial, key)
        try:
            if key is not None and (opened := await self._reused(plan)) is not None:
                end_turn()
                return opened
            name = f"{trial}/{lineage}"
            opened, worker = await self._open_session(trial, session, name, config, plan, exported)
        except StageFailedError as error:
            end_turn()
            return Opened({}, [], failure=error.failure)
        except BaseException:
            end_turn()
            raise
        finally:
            self._doing.pop(trial, None)
        held = _Held(worker, session, end_turn)
        if self._latest.get(trial) == session:
            self._held[trial] = held
        else:  # the trial ended, or was opened anew, while its stages were being trained
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

    async def _fusion_turn(self, trial: int, key: str | None) -> Callable[[], None]:
        """Two trials with one configuration: the second waits, and finds the first's artifact. A
        key of None shares nothing. What is returned ends the turn; a second call does nothing."""
        if key is None:
            return lambda: None
        self._doing[trial] = "waits for a trial that trains the same fusion"
        while key in self._fusion_ends:
            await self._fusion_ends[key].wait()
        event = self._fusion_ends[key] = asyncio.Event()
        release = await claim(self._store, "fusion", key)

        def end_turn() -> None:
            if not event.is_set():
                event.set()
                del self._fusion_ends[key]
                release()

        return end_turn

    async def _reused(self, plan: Plan) -> Opened | None:
        """What a trial gets whose fusion artifact exists."""
        found = await asyncio.to_thread(
            self._store.find, "fusion", plan.keys["fusion"], say=self._warnings.append
        )
        if found is None:
            return None
        records = await asyncio.to_thread(self._records_of, plan)
        return Opened(
            records,
            found.metrics["reports"],
            metrics=found.metrics,
            fusion_key=plan.keys["fusion"],
        )

    def _records_of(self, plan: Plan) -> dict[str, StageRecord]:
        """All stages as found; one that somebody deleted saved nothing that is known."""
        records = {}
        for stage, key in plan.keys.items():
            try:
                metrics = self._store.read_metrics(stage, key)
            except ArtifactError:
                metrics = {}
            records[stage] = found_record(key, metrics, self._sweep_id)
        return records

    async def _open_session(
        self,
        trial: int,
        session: str,
        name: str,
        config: Config,
        plan: Plan,
        exported: bytes | None,
    ) -> tuple[Opened, PoolWorker]:
        shape = shape_of(config.resources.fusion)

        async def work(names: list[str], tables: list[Any]) -> tuple[PoolWorker, Any]:
            async def open_on(handle: Any) -> Any:
                self._doing[trial] = "opens its fusion session"
                return await handle.open.remote(
                    session, config, plan, f"{self._exports}/{name}", exported, names, *tables
                )

            self._doing[trial] = "waits for a worker"
            return await self._pool.on_worker(shape, open_on, self._max_failures, session)

        try:
            (worker, opening), records = await self._upstream.given(
                trial, config, plan, plan.upstream, work
            )
        except WorkerDiedError as error:
            raise StageFailedError(Failure("failed", f"fusion: {error}")) from None
        if isinstance(opening, Failure):
            self._pool.release(worker, session)
            raise StageFailedError(opening)
        key = plan.keys["fusion"]
        opened = Opened(
            records,
            opening.reports,
            opening.seconds,
            worker=worker.handle,
            session=session,
            fusion_key=key,
        )
        return opened, worker

    @property
    def _exports(self) -> str:
        return f"sweeps/{self._sweep_id}"

    async def _end_idle_workers(self) -> None:
        while True:
            await asyncio.sleep(2)
            self._pool.end_idle()
            await self._pool.discard_dead()


EngineActor: Any = ray.remote(max_restarts=-1, max_task_retries=-1, num_cpus=0)(Engine)
