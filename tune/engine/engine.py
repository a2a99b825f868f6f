"""The engine: one named Ray actor that knows which stages exist, which are being trained, and which
trials wait for them.

It holds nothing that cannot be rebuilt from the store. A stage that several trials need is trained
once; the others wait for it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import ray
from ray.exceptions import RayError

from magtkd.config import Config
from magtkd.errors import ArtifactError, InputError
from magtkd.pipeline import (
    CORE_TRAINER,
    Plan,
    Source,
    StageRecord,
    Trainer,
    find_stage,
    make_plan,
)
from magtkd.store import Artifact, Store
from tune.cluster import Need, Node, Shape, live_nodes, node_types, shape_of
from tune.engine.gate import Allowance, Gate
from tune.engine.handles import FusionFound, Opened, Ref, SessionOpened, WorkerHandle
from tune.engine.messages import (
    EngineActivity,
    Failure,
    FailureKind,
    NodeActivity,
    PoolCounts,
    SessionRequest,
    StageProgress,
    TrialRequest,
    WantedWorkers,
    WorkerSession,
)
from tune.engine.pool import Pool, WorkerDiedError
from tune.engine.pool_worker import PoolWorker, Wanted
from tune.engine.turns import FusionTurns
from tune.engine.upstream import (
    PlannedTrial,
    StageFailedError,
    Upstream,
    found_record,
)
from tune.engine.worker import WorkerActor
from tune.ledger import session_name, sessions_folder

__all__ = ["Engine"]


@dataclass(frozen=True, kw_only=True)
class _Held:
    """A session on a worker: who asked for it, what was answered, and a call that lets the next
    trial with the same fusion begin."""

    worker: PoolWorker
    asking: PlannedTrial
    request: SessionRequest
    opened: SessionOpened
    end_turn: Callable[[], None]

    @property
    def session(self) -> str:
        """Its name."""
        return self.request.session


@dataclass(frozen=True)
class _Exported:
    """A session that left its worker, and did not come up on another one."""

    checkpoint: bytes


class Engine:
    """Trains what is missing, once, and places sessions on workers.

    Args:
        storage: address of the store.
        base: the plain configuration that the sweep varies.
        source: fingerprint and modalities of the table.
        sweep_id: the sweep, for the names of its checkpoints.
        reuse: look for artifacts, and share what is trained between trials.
        max_failures: how often the work of a worker that died is retried.
        trainer: opens sessions; see `Worker`.
        token_name: a file in the storage that each worker's node must see.
        needs: what stages read beside the storage, which their workers' nodes must have.
    """

    def __init__(
        self,
        storage: str,
        base: Config,
        source: Source,
        sweep_id: str,
        *,
        reuse: bool = True,
        max_failures: int = 3,
        trainer: Trainer = CORE_TRAINER,
        token_name: str | None = None,
        needs: Sequence[Need] = (),
    ) -> None:
        self._store = Store(storage)
        self._base, self._source = base, source
        self._sweep_id, self._reuse = sweep_id, reuse
        self._max_failures, self._trainer = max_failures, trainer
        self._token_name, self._needs = token_name, tuple(needs)
        self._nodes, self._nodes_time = tuple[Node, ...](), -math.inf
        limits = base.resources
        self._node_types = node_types(limits.node_types)
        self._pool = Pool(
            self._start_worker,
            ray.kill,
            self._live_nodes,
            self._move,
            max_workers=limits.max_workers,
            idle_seconds=limits.idle_seconds,
        )
        self._warnings: list[str] = []
        self._gate = Gate()
        self._upstream = Upstream(
            self._store,
            self._pool,
            self._gate,
            sweep_id,
            reuse=reuse,
            max_failures=max_failures,
            warn=self._warnings.append,
        )
        self._turns = FusionTurns(self._store)
        self._held: dict[int, _Held] = {}
        self._moves: dict[int, asyncio.Future[SessionOpened | _Exported | None]] = {}
        self._latest: dict[int, str] = {}
        self._turn_of = defaultdict[int, asyncio.Lock](asyncio.Lock)
        self._doing: dict[int, str] = {}
        self._sweeper: asyncio.Task[None] | None = None

    def _live_nodes(self) -> tuple[Node, ...]:
        """The nodes, asked for at most once a second: asking holds up the event loop."""
        if time.monotonic() - self._nodes_time > 1.0:
            self._nodes, self._nodes_time = live_nodes(), time.monotonic()
        return self._nodes

    def _start_worker(self, shape: Shape) -> WorkerHandle:
        handle: WorkerHandle = WorkerActor.options(**shape.options()).remote(
            self._store.address,
            shape,
            self._trainer,
            self._sweep_id,
            token_name=self._token_name,
            paths=[need.path for need in self._needs if need.shape == shape],
        )
        return handle

    # --- what the driver calls ----------------------------------------------------------------

    async def warm_up(self, num_workers: int) -> None:
        """Start workers for the first stage that is to be trained, while the first trials are still
        being set up: as many as there may be trials where fusion takes workers of the same shape,
        else one."""
        config = self._base
        fusion = shape_of(config.resources.fusion)
        for stage, key in make_plan(config, self._source).keys.items():
            resources = find_stage(stage).resources(config)
            if resources is None or await asyncio.to_thread(self._store.exists, stage, key):
                continue
            shape = shape_of(resources)
            self._pool.warm_up(shape, num_workers if shape == fusion else 1)
            return

    async def allow(self, allowance: Allowance) -> None:
        """How much the sweep may still train."""
        self._gate.allow(allowance)

    async def counts(self) -> PoolCounts:
        """What the workers do, and how many requests wait."""
        return self._pool.counts()

    async def describe(self) -> EngineActivity:
        """What each trial does or waits for, and what the workers do."""
        trials = {
            trial: f"trains fusion on {held.worker.host}" for trial, held in self._held.items()
        } | self._doing
        for number in list(trials):
            trials[number] = self._upstream.waits_for(number) or trials[number]
        on_nodes, none = self._pool.on_nodes(), PoolCounts()
        return EngineActivity(
            trials=trials,
            workers=self._pool.counts(),
            nodes=tuple(
                NodeActivity(name=node.name, has=node.has, workers=on_nodes.get(node.id, none))
                for node in self._live_nodes()
            ),
            wanted=tuple(self._described(wanted) for wanted in self._pool.wanted()),
            warnings=list(self._warnings),
            problem=self._pool.problem,
            is_withheld=self._gate.holds_all and not self._pool.counts().waiting,
        )

    def _described(self, wanted: Wanted) -> WantedWorkers:
        live = next((one for one in self._live_nodes() if one.fits(wanted.shape)), None)
        node = live or next((one for one in self._node_types if one.fits(wanted.shape)), None)
        return WantedWorkers(
            shape=str(wanted.shape),
            number=wanted.number,
            seconds=wanted.seconds,
            from_node=node.name if node is not None else "",
            is_live=live is not None,
        )

    @ray.method(max_task_retries=0)  # type: ignore[untyped-decorator]
    async def save(self) -> int:
        """Write a checkpoint of each session at the end of its epoch; how many could not be.

        Not tried again where the engine is gone: Ray often goes with what asks for this.
        """
        if self._moves:  # one on its way is on no worker
            await asyncio.wait(self._moves.values())
        calls = [held.worker.handle.save.remote(held.session) for held in self._held.values()]
        results = await asyncio.gather(*calls, return_exceptions=True)
        return sum(isinstance(result, BaseException) for result in results)

    async def end(self, trial: int) -> None:
        """A trial has ended: close its session, and remove its checkpoints."""
        await self.close(trial)
        folder = sessions_folder(self._sweep_id, trial)
        await asyncio.to_thread(self._store.remove_folder, folder)

    # --- what workers call --------------------------------------------------------------------

    async def on_progress(self, key: str, progress: StageProgress) -> None:
        """An epoch of a stage is over."""
        self._upstream.on_progress(key, progress)

    # --- what trials call ---------------------------------------------------------------------

    async def open(self, request: TrialRequest) -> Opened:
        """Everything a trial needs for its next epoch; waits until it is there."""
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().create_task(self._look_again())
        trial = request.trial
        async with self._turn_of[trial]:  # an actor of this trial that died may still be asking
            moved = await self._moved(request)
            if isinstance(moved, SessionOpened):
                return moved
            if moved is not None:
                request = replace(request, checkpoint=moved.checkpoint)
            await self._save_and_close(trial)  # or have left a session open
            session = self._latest[trial] = uuid.uuid4().hex
        try:
            config = request.candidate.config(self._base)
            plan = make_plan(config, self._source)
        except InputError as error:
            return Failure(FailureKind.FAILED, str(error))
        asking = PlannedTrial(trial, config, plan)
        key = plan.fusion_key if self._reuse and not request.needs_session else None
        self._doing[trial] = "waits for a trial that trains the same fusion"
        end_turn = await self._turns.take(key)
        try:
            if key is not None and (found := await self._reused(plan)) is not None:
                end_turn()
                return found
            held = await self._open_session(asking, session, request, end_turn)
        except StageFailedError as error:
            end_turn()
            return error.failure
        except BaseException:
            end_turn()
            raise
        finally:
            self._doing.pop(trial, None)
        if self._latest.get(trial) == session:
            self._held[trial] = held
        else:  # the trial ended, or was opened again, while its stages were being trained
            await self._end_session(held)
        return held.opened

    async def close(self, trial: int, session: str | None = None) -> None:
        """End a trial's session, if it has one; where one is named, that one and no later one."""
        if session is not None and self._latest.get(trial) != session:
            return
        self._latest.pop(trial, None)
        self._moves.pop(trial, None)
        if trial in self._held:
            await self._end_session(self._held.pop(trial))

    async def worker_died(self, trial: int) -> None:
        """A trial found its worker gone."""
        if trial in self._moves:  # the one that its session has left: it may be ended any time
            await self._pool.discard_dead()
        elif trial in self._held:
            held = self._held.pop(trial)
            self._gate.end(held.session)
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
        self._gate.end(held.session)
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
        self,
        asking: PlannedTrial,
        session: str,
        request: TrialRequest,
        end_turn: Callable[[], None],
    ) -> _Held:
        trial, config, plan = asking.trial, asking.config, asking.plan
        shape = shape_of(config.resources.fusion)
        wanted = SessionRequest(
            session=session,
            config=config,
            plan=plan,
            checkpoint_name=session_name(self._sweep_id, trial, request.candidate.name),
            checkpoint=request.checkpoint,
        )

        # One that continues is not begun, and any may.
        continues = request.needs_session or request.checkpoint is not None
        begun_as = "" if continues else plan.fusion_key

        async def work(
            names: list[str], tables: list[Ref[Artifact]]
        ) -> tuple[PoolWorker, WorkerSession | Failure]:
            async def open_on(worker: PoolWorker) -> WorkerSession | Failure | None:
                if not self._gate.begin(session, begun_as):
                    return None
                self._doing[trial] = f"opens its fusion session on {worker.host}"
                return await worker.handle.open.remote(wanted, names, *tables)

            while True:
                await self._gate.wait(begun_as, say_withheld)
                self._doing[trial] = "waits for a worker"
                worker, found = await self._pool.on_worker(
                    shape, open_on, self._max_failures, session
                )
                if found is not None:
                    return worker, found
                self._pool.release(worker, session)

        def say_withheld() -> None:
            self._doing[trial] = "does not begin fusion, which would not end within the budget"

        try:
            (worker, found), records = await self._upstream.given(asking, plan.upstream, work)
        except BaseException as error:
            self._gate.end(session)
            if isinstance(error, WorkerDiedError):
                failure = Failure(FailureKind.FAILED, f"fusion: {error}")
                raise StageFailedError(failure) from None
            raise
        if isinstance(found, Failure):
            self._gate.end(session)
            self._pool.release(worker, session)
            raise StageFailedError(found)
        opened = SessionOpened(
            records=records,
            fusion_key=plan.fusion_key,
            reports=found.reports,
            seconds=found.seconds,
            place=found.place,
            worker=worker.handle,
            session=session,
        )
        # A checkpoint may be large, and is not needed again: the store has later ones.
        kept = replace(wanted, checkpoint=None)
        return _Held(worker=worker, asking=asking, request=kept, opened=opened, end_turn=end_turn)

    # --- sessions that move -------------------------------------------------------------------

    async def _move(self, session: str, source: PoolWorker, target: PoolWorker) -> bool:
        """Move a session between workers; its trial learns of it when it asks for the next epoch.
        Whether the session is on the target now."""
        found = [trial for trial, held in self._held.items() if held.session == session]
        if not found or found[0] in self._moves:
            # It is being opened, has just ended, or its trial has yet to learn of the last move.
            return False
        trial = found[0]
        held = self._held[trial]
        move = self._moves[trial] = asyncio.get_running_loop().create_future()
        moved: SessionOpened | _Exported | None = None
        try:
            checkpoint = await source.handle.export.remote(session)
            if checkpoint is not None:
                moved = _Exported(checkpoint)
                moved = await self._reopen(held, checkpoint, target) or moved
        except (RayError, StageFailedError):
            pass  # the trial opens its session anew, at what was exported or the last checkpoint
        finally:
            if self._held.get(trial) is not held:  # the trial has ended meanwhile
                target.handle.close.remote(session)
                moved = None
            if isinstance(moved, SessionOpened):
                self._held[trial] = replace(held, worker=target, opened=moved)
            elif moved is None:
                self._moves.pop(trial, None)
            move.set_result(moved)
        return isinstance(moved, SessionOpened)

    async def _moved(self, request: TrialRequest) -> SessionOpened | _Exported | None:
        """The session of a trial that was moved since the trial has had it; None where it was
        not, or where the trial is to continue from something else."""
        move, held = self._moves.get(request.trial), self._held.get(request.trial)
        if move is None:
            return None
        moved = await move
        self._moves.pop(request.trial, None)
        name = session_name(self._sweep_id, request.trial, request.candidate.name)
        is_same = held is not None and held.request.checkpoint_name == name
        return moved if is_same and request.checkpoint is None else None

    async def _reopen(
        self, held: _Held, checkpoint: bytes, target: PoolWorker
    ) -> SessionOpened | None:
        """A session on another worker, at a checkpoint; None where it does not come up there."""
        wanted = replace(held.request, checkpoint=checkpoint)

        async def work(names: list[str], tables: list[Ref[Artifact]]) -> WorkerSession | Failure:
            return await target.handle.open.remote(wanted, names, *tables)

        plan = held.asking.plan
        found, _ = await self._upstream.given(held.asking, plan.upstream, work)
        if isinstance(found, Failure):
            return None
        return replace(
            held.opened,
            reports=found.reports,
            seconds=found.seconds,
            place=found.place,
            worker=target.handle,
        )

    async def _look_again(self) -> None:
        while True:
            await asyncio.sleep(1)
            try:
                self._pool.look_again()
                await self._pool.discard_dead()
            except Exception:  # as of a GCS that restarts; Ray keeps the log
                logging.getLogger(__name__).exception("looking at nodes and workers")
