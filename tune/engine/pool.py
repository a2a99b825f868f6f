"""The pool of workers: which request is served next, and which idle workers are ended for it.

Requests are served in order. One that lacks a resource keeps later ones from taking more of that
resource, so a teacher that needs the whole GPU is not starved by trials that need a tenth of it;
workers with nothing to do that hold it are ended, and sessions already open run to their end.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from ray.exceptions import ObjectLostError, RayActorError, RayError, RayTaskError

from magtkd.errors import first_line
from tune.cluster import Shape
from tune.engine.handles import WorkerHandle
from tune.engine.messages import PoolCounts

__all__ = ["Pool", "PoolWorker", "WorkerDiedError", "reason_of"]

T = TypeVar("T")

IDLE_SECONDS = 10.0
"""How long a worker with nothing to do is kept while no request waits."""
DEAD_SECONDS = 1.0
"""How long to wait for idle workers to answer."""


def reason_of(error: RayError) -> str:
    """Why a process died, in one line. Ray mentions a lack of memory far down in its text."""
    if re.search(r"\bOOM\b|out of memory|memory pressure", str(error)):
        return "out of memory: Ray ended it before its node had none left; ask for more memory"
    return first_line(error)


class WorkerDiedError(Exception):
    """The processes that were to do some work died, one after another."""


@dataclass(eq=False, kw_only=True)
class PoolWorker:
    """A worker process: `is_training` a stage, or holding `sessions`, or idle."""

    handle: WorkerHandle
    shape: Shape
    is_ready: bool = False
    is_training: bool = False
    sessions: set[str] = field(default_factory=set)
    idle_since: float = field(default_factory=time.monotonic)

    @property
    def is_idle(self) -> bool:
        """Whether it is up and has nothing to do."""
        return self.is_ready and not self.is_training and not self.sessions


@dataclass(eq=False)
class _Request:
    shape: Shape
    session: str | None
    future: asyncio.Future[PoolWorker]


class Pool:
    """Starts, hands out and ends workers, in one event loop.

    Args:
        start: starts a worker process of a shape and returns its handle.
        end: ends one.
        totals: the cluster's resources, queried each time.
    """

    def __init__(
        self,
        start: Callable[[Shape], WorkerHandle],
        end: Callable[[WorkerHandle], None],
        totals: Callable[[], Mapping[str, float]],
    ) -> None:
        self._start, self._end, self._totals = start, end, totals
        self._workers: list[PoolWorker] = []
        self._queue: list[_Request] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def warm_up(self, shape: Shape, num_workers: int) -> None:
        """Start workers that will be wanted soon, as far as there is room."""
        totals = self._totals()
        for _ in range(num_workers):
            if not self._lacking(shape, totals):
                self._start_worker(shape)

    async def on_worker(
        self,
        shape: Shape,
        work: Callable[[WorkerHandle], Awaitable[T]],
        max_failures: int,
        session: str | None = None,
    ) -> tuple[PoolWorker, T]:
        """Do work on a worker, and on another one where its process dies.

        Args:
            shape: what the worker is to have.
            work: gets the worker's handle.
            max_failures: how often the work is done again.
            session: as for `acquire`.

        Returns:
            the worker, which is still to be released, and what the work gave.

        Raises:
            WorkerDiedError: once more than that.
        """
        for _ in range(max_failures + 1):
            worker = None
            try:
                worker = await self.acquire(shape, session)
                return worker, await work(worker.handle)
            except (RayTaskError, ObjectLostError):  # not the worker's fault
                if worker is not None:
                    self.release(worker, session)
                raise
            except RayError as error:
                last = error
                if worker is not None:
                    self.discard(worker)
                await self.discard_dead()
        raise WorkerDiedError(f"its worker died {max_failures + 1} times: {reason_of(last)}")

    async def acquire(self, shape: Shape, session: str | None = None) -> PoolWorker:
        """A worker that trains a stage, or where one is named, holds a session; waits for one."""
        request = _Request(shape, session, asyncio.get_running_loop().create_future())
        self._queue.append(request)
        self._dispatch()
        try:
            return await request.future
        except asyncio.CancelledError:
            self._withdraw(request)
            raise

    def release(self, worker: PoolWorker, session: str | None = None) -> None:
        """Give back a worker that finished its stage, or a session's place on it."""
        if session is None:
            worker.is_training = False
        else:
            worker.sessions.discard(session)
        worker.idle_since = time.monotonic()
        self._dispatch()

    def discard(self, worker: PoolWorker) -> None:
        """Forget a worker whose process is gone."""
        if worker in self._workers:
            self._workers.remove(worker)
            self._end(worker.handle)
        self._dispatch()

    async def discard_dead(self) -> None:
        """Forget idle workers whose process is gone, as those of a node that died."""
        asked = {
            asyncio.ensure_future(worker.handle.ready.remote()): worker
            for worker in self._workers
            if worker.is_idle
        }
        if not asked:
            return
        # A process that is gone fails at once; one that was given work meanwhile answers late.
        await asyncio.wait(asked, timeout=DEAD_SECONDS)
        for answer, worker in asked.items():
            if answer.done() and isinstance(answer.exception(), RayActorError):
                self.discard(worker)

    def end_idle(self) -> None:
        """End workers that have had nothing to do for a while."""
        for worker in list(self._workers):
            if worker.is_idle and time.monotonic() - worker.idle_since > IDLE_SECONDS:
                self.discard(worker)

    def counts(self) -> PoolCounts:
        """What the workers do now, and how many requests wait."""
        return PoolCounts(
            training=sum(worker.is_training for worker in self._workers),
            holding=sum(bool(worker.sessions) for worker in self._workers),
            idle=sum(worker.is_idle for worker in self._workers),
            starting=sum(not worker.is_ready for worker in self._workers),
            waiting=len(self._queue),
        )

    # --- who is next --------------------------------------------------------------------------

    def _withdraw(self, request: _Request) -> None:
        """A request that was given up: out of the queue, or its worker back into the pool."""
        if request in self._queue:
            self._queue.remove(request)
            self._dispatch()
        elif not request.future.cancelled() and request.future.exception() is None:
            self.release(request.future.result(), request.session)

    def _dispatch(self) -> None:
        totals = self._totals() if self._queue else {}
        lacking: set[str] = set()
        starting = [worker for worker in self._workers if not worker.is_ready]
        for request in list(self._queue):
            if request.future.cancelled():
                self._queue.remove(request)
                continue
            names = {name for name, _ in request.shape}
            worker = None if names & lacking else self._find(request, totals)
            if worker is not None:
                self._queue.remove(request)
                self._give(worker, request)
                continue
            coming = next((one for one in starting if one.shape == request.shape), None)
            if coming is not None:
                starting.remove(coming)  # this request will have it
            elif not names & lacking:
                lacking |= self._start_or_lack(request.shape, totals)

    def _find(self, request: _Request, totals: Mapping[str, float]) -> PoolWorker | None:
        same_shape = [worker for worker in self._workers if worker.shape == request.shape]
        idle = next((worker for worker in same_shape if worker.is_idle), None)
        if idle is not None or request.session is None:
            return idle
        if not self._lacking(request.shape, totals):
            return None  # there is room for a worker of its own
        holding = [worker for worker in same_shape if worker.sessions]
        return min(holding, key=lambda worker: len(worker.sessions), default=None)

    def _give(self, worker: PoolWorker, request: _Request) -> None:
        if request.session is None:
            worker.is_training = True
        else:
            worker.sessions.add(request.session)
        request.future.set_result(worker)

    def _lacking(self, shape: Shape, totals: Mapping[str, float]) -> set[str]:
        """The resources of which a new worker would find too little."""
        used: dict[str, float] = {}
        for worker in self._workers:
            for name, amount in worker.shape:
                used[name] = used.get(name, 0.0) + amount
        return {
            name
            for name, amount in shape
            if totals.get(name, 0.0) - used.get(name, 0.0) < amount - 1e-6
        }

    def _start_or_lack(self, shape: Shape, totals: Mapping[str, float]) -> set[str]:
        lacking = self._lacking(shape, totals)
        for worker in [worker for worker in self._workers if worker.is_idle]:
            if lacking & {name for name, _ in worker.shape}:
                self._workers.remove(worker)
                self._end(worker.handle)
                lacking = self._lacking(shape, totals)
        # With no worker at all there is nothing to wait for: ask, and let the cluster grow.
        if not lacking or not self._workers:
            self._start_worker(shape)
            return set()
        return lacking

    def _start_worker(self, shape: Shape) -> None:
        worker = PoolWorker(handle=self._start(shape), shape=shape)
        self._workers.append(worker)
        task = asyncio.get_running_loop().create_task(self._await_ready(worker))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _await_ready(self, worker: PoolWorker) -> None:
        try:
            await worker.handle.ready.remote()
        except RayError as error:
            self._fail_waiting(worker, error)
            return
        worker.is_ready = True
        worker.idle_since = time.monotonic()
        self._dispatch()

    def _fail_waiting(self, worker: PoolWorker, error: Exception) -> None:
        """A process that does not come up: fail one request for its shape, which may ask again."""
        if worker in self._workers:
            self._workers.remove(worker)
        for request in self._queue:
            if request.shape == worker.shape and not request.future.cancelled():
                self._queue.remove(request)
                request.future.set_exception(error)
                break
        self._dispatch()
