"""The pool of workers: which request is served next, and for which of them workers wait in Ray.

Each request that finds no worker has one that is pending in Ray, with its true shape, so that an
autoscaler sees what is wanted; whichever worker comes up first is taken. Requests are served in
order. One that lacks a resource keeps later ones of other shapes from taking any of that resource,
so a teacher that needs a whole GPU is not starved by trials that need a tenth of it; workers with
nothing to do that hold it are ended, and sessions already open run to their end. Sessions that find
no room share a worker; each of them but the first still counts as wanting one of its own, and moves
there once it comes up.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from ray.exceptions import ObjectLostError, RayActorError, RayError, RayTaskError

from tune.cluster import Node, Shape
from tune.engine.handles import WorkerHandle, import_problem, reason_of
from tune.engine.messages import PoolCounts
from tune.engine.pool_worker import PoolWorker, Wanted, counts_of
from tune.engine.room import Room

__all__ = ["Pool", "WorkerDiedError"]

T = TypeVar("T")

DEAD_SECONDS = 1.0
"""How long to wait for idle workers to answer."""
MOVE_SECONDS = 1.0
"""How long after a session could not be moved another one is tried."""
WARM_SECONDS = 120.0
"""How much longer than others a worker is kept that was started for what will be wanted soon."""
SLOT = "worker"
"""What a worker takes of `resources.max_workers`, as if it were one more resource."""


class WorkerDiedError(Exception):
    """The processes that were to do some work died, one after another."""


@dataclass(eq=False)
class _Request:
    shape: Shape
    session: str | None
    future: asyncio.Future[PoolWorker]


class Pool:
    """Starts, hands out and ends workers, in one event loop.

    Args:
        start: asks for a worker process of a shape and returns its handle.
        end: ends one, or takes the demand for it back.
        nodes: the nodes that are alive, queried each time.
        move: moves a session from one worker to another; whether that went well.
        max_workers: the most workers at a time.
        idle_seconds: how long a worker with nothing to do is kept while no request waits.
    """

    def __init__(
        self,
        start: Callable[[Shape], WorkerHandle],
        end: Callable[[WorkerHandle], None],
        nodes: Callable[[], Sequence[Node]],
        move: Callable[[str, PoolWorker, PoolWorker], Awaitable[bool]],
        *,
        max_workers: int | None = None,
        idle_seconds: float = 10.0,
    ) -> None:
        self._start, self._end, self._nodes, self._move = start, end, nodes, move
        self._max_workers, self._idle_seconds = max_workers, idle_seconds
        self._workers: list[PoolWorker] = []
        self._queue: list[_Request] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_due = False
        self._moving, self._move_from = False, -math.inf
        self.problem = ""
        """Why a node cannot have workers: nothing more is started, since Ray might use that node
        again, and whoever runs the pool has to stop."""

    def warm_up(self, shape: Shape, num_workers: int) -> None:
        """Start workers that will be wanted soon, as far as there is room."""
        room = self._room()
        for _ in range(num_workers):
            if self._has_slot and room.has(shape):
                room.take(shape)
                self._start_worker(shape, loads=True)

    async def on_worker(
        self,
        shape: Shape,
        work: Callable[[PoolWorker], Awaitable[T]],
        max_failures: int,
        session: str | None = None,
    ) -> tuple[PoolWorker, T]:
        """Do work on a worker, and on another one where its process dies.

        Args:
            shape: what the worker is to have.
            work: gets the worker.
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
                return worker, await work(worker)
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
        self._dispatch_soon()
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
        worker.since = time.monotonic()
        self._dispatch_soon()

    def discard(self, worker: PoolWorker) -> None:
        """Forget a worker whose process is gone."""
        if worker in self._workers:
            self._workers.remove(worker)
            self._end(worker.handle)
        self._dispatch_soon()

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

    def look_again(self) -> None:
        """Time has passed, and nodes may have come or gone: end workers that have had nothing to do
        for a while, and serve who can be served."""
        for worker in list(self._workers):
            if worker.is_idle and time.monotonic() - worker.since > self._idle_seconds:
                self._end_worker(worker)
        self._dispatch()

    def counts(self) -> PoolCounts:
        """What the workers do now, and how many requests wait."""
        return replace(counts_of(self._workers), waiting=len(self._queue))

    def on_nodes(self) -> dict[str, PoolCounts]:
        """What the workers on each node do, by the node's id."""
        found: dict[str, list[PoolWorker]] = {}
        for worker in self._workers:
            if worker.place is not None:
                found.setdefault(worker.place.node_id, []).append(worker)
        return {node_id: counts_of(workers) for node_id, workers in found.items()}

    def wanted(self) -> list[Wanted]:
        """The workers for which no node has room, by shape."""
        pending = [one for one in self._workers if not one.is_ready and not one.has_room]
        now = time.monotonic()
        return [
            Wanted(shape, number, now - min(one.since for one in pending if one.shape == shape))
            for shape, number in Counter(one.shape for one in pending).items()
        ]

    # --- who is next --------------------------------------------------------------------------

    def _withdraw(self, request: _Request) -> None:
        """A request that was given up: out of the queue, or its worker back into the pool."""
        if request in self._queue:
            self._queue.remove(request)
            self._dispatch_soon()
        elif not request.future.cancelled() and request.future.exception() is None:
            self.release(request.future.result(), request.session)

    def _room(self) -> Room:
        placed = ((one.place.node_id, one.shape) for one in self._workers if one.place)
        return Room(self._nodes(), placed)

    def _dispatch_soon(self) -> None:
        """Dispatch once for all that happens at a time."""
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._dispatch)

    def _dispatch(self) -> None:
        """Serve who can be served, and have a worker on its way for everyone else."""
        self._is_due = False
        if self.problem or (not self._queue and not self._workers):
            return
        room = self._room()
        coming = [worker for worker in self._workers if not worker.is_ready]
        # What those before lack: their shape, and the resources.
        blocked: list[tuple[Shape, frozenset[str]]] = []
        for request in list(self._queue):
            if request.future.cancelled():
                self._queue.remove(request)
            elif not self._serve(request, room, coming, blocked):
                self._await_worker(request.shape, room, coming, blocked)
        self._want_for_sharing(room, coming, blocked)
        for worker in coming:  # no one wants these
            worker.has_room = not room.take(worker.shape)
            if not worker.has_room:
                self._end_worker(worker)
        self._balance(blocked)

    def _serve(
        self,
        request: _Request,
        room: Room,
        coming: Sequence[PoolWorker],
        blocked: Sequence[tuple[Shape, frozenset[str]]],
    ) -> bool:
        """Give a request a worker that is up, where that takes nothing from those before."""
        if any(_asks(request.shape) & lacking for _, lacking in blocked):
            return False
        same = [one for one in self._workers if one.is_ready and one.shape == request.shape]
        worker = next((one for one in same if one.is_idle), None)
        if worker is None and request.session is not None:
            holding = [one for one in same if one.sessions]
            worker = min(holding, key=lambda one: len(one.sessions), default=None)
            if worker is not None and self._is_at_hand(request.shape, room, coming):
                return False
        if worker is None:
            return False
        self._queue.remove(request)
        if request.session is None:
            worker.is_training = True
        else:
            worker.sessions.add(request.session)
        request.future.set_result(worker)
        return True

    def _is_at_hand(self, shape: Shape, room: Room, coming: Sequence[PoolWorker]) -> bool:
        """Whether a worker of its own would be up soon."""
        mine = next((one for one in coming if one.shape == shape), None)
        if mine is not None:
            return mine.is_coming_soon and room.has(shape)
        return self._has_slot and room.has(shape)

    def _await_worker(
        self,
        shape: Shape,
        room: Room,
        coming: list[PoolWorker],
        blocked: list[tuple[Shape, frozenset[str]]],
    ) -> None:
        """Have a worker on its way, or pending in Ray, for one who waits."""
        if not self._may_ask(shape, room, blocked):
            return
        worker = self._coming_for(shape, room, coming)
        if worker is None:
            blocked.append((shape, frozenset({SLOT})))
            return
        lacking = room.take(shape)
        is_first = all(shape != other for other, _ in blocked)
        if lacking and is_first and self._end_idle_for(shape, room):
            lacking = room.take(shape)
        worker.has_room = not lacking
        if not worker.is_coming_soon and not lacking:
            # What is left of several GPUs together need not be a whole one.
            lacking = shape.names & {"GPU"}
        if lacking:
            blocked.append((shape, lacking))

    @staticmethod
    def _may_ask(shape: Shape, room: Room, blocked: Sequence[tuple[Shape, frozenset[str]]]) -> bool:
        """Whether Ray may have a worker of this shape pending: not where it could take what others
        need that were here first, which lack it or are being placed just now."""
        if any(_asks(shape) & lacking and shape != other for other, lacking in blocked):
            return False
        return room.has(shape) or not room.is_expected_by_another(shape)

    def _coming_for(self, shape: Shape, room: Room, coming: list[PoolWorker]) -> PoolWorker | None:
        """A worker of this shape that is on its way up, or is asked for now; None where there are
        as many workers as there may be."""
        mine = next((one for one in coming if one.shape == shape), None)
        if mine is not None:
            coming.remove(mine)
            return mine
        if not self._has_slot:
            unwanted = next((one for one in coming if not one.has_room), None)
            unwanted = unwanted or next((one for one in self._workers if one.is_idle), None)
            if unwanted is None:
                return None
            if unwanted in coming:
                coming.remove(unwanted)
            self._end_worker(unwanted, room)
        return self._start_worker(shape)

    def _end_idle_for(self, shape: Shape, room: Room) -> bool:
        """End idle workers for one of this shape, where that makes room; whether it did."""
        idle = [worker for worker in self._workers if worker.is_idle]
        places = [(one.place.node_id, one.shape) for one in idle if one.place]
        found = room.ended_for(shape, places)
        if found is None:
            return False
        for index in found[1]:
            self._end_worker(idle[index], room)
        return True

    def _want_for_sharing(
        self, room: Room, coming: list[PoolWorker], blocked: list[tuple[Shape, frozenset[str]]]
    ) -> None:
        """Each session but the first on a worker wants one of its own, after all requests."""
        shared = Counter[Shape]()
        for worker in self._workers:
            if worker.is_ready and not worker.is_training:
                shared[worker.shape] += len(worker.sessions) - 1
        for shape, number in shared.items():
            for _ in range(number):
                if not self._may_ask(shape, room, blocked):
                    break
                mine = next((one for one in coming if one.shape == shape), None)
                if mine is not None:
                    coming.remove(mine)
                elif self._has_slot:
                    mine = self._start_worker(shape)
                else:
                    break
                mine.has_room = not room.take(shape)

    def _balance(self, blocked: Sequence[tuple[Shape, frozenset[str]]]) -> None:
        """Move one session from the worker that holds the most to the one of its shape that holds
        the fewest, unless their numbers are even, or what frees up is waited for."""
        if self._moving or time.monotonic() < self._move_from:
            return
        ready = [one for one in self._workers if one.is_ready and not one.is_training]
        for shape in {worker.shape for worker in ready}:
            if any(_asks(shape) & lacking for _, lacking in blocked):
                continue
            same = sorted(
                (one for one in ready if one.shape == shape), key=lambda one: len(one.sessions)
            )
            if len(same[-1].sessions) - len(same[0].sessions) >= 2:
                self._moving = True
                session = min(same[-1].sessions)
                same[0].sessions.add(session)  # now: it is not to end, or get a stage, meanwhile
                self._do(self._move_one(session, same[-1], same[0]))
                return

    async def _move_one(self, session: str, source: PoolWorker, target: PoolWorker) -> None:
        has_moved = False
        try:
            has_moved = await self._move(session, source, target)
        finally:
            self._moving = False
            if not has_moved:
                self._move_from = time.monotonic() + MOVE_SECONDS
            self.release(source if has_moved else target, session)

    @property
    def _has_slot(self) -> bool:
        return self._max_workers is None or len(self._workers) < self._max_workers

    # --- processes ----------------------------------------------------------------------------

    def _start_worker(self, shape: Shape, *, loads: bool = False) -> PoolWorker:
        worker = PoolWorker(handle=self._start(shape), shape=shape)
        self._workers.append(worker)
        self._do(self._await_ready(worker, loads))
        return worker

    def _end_worker(self, worker: PoolWorker, room: Room | None = None) -> None:
        self._workers.remove(worker)
        self._end(worker.handle)
        if room is not None and worker.place is not None:
            room.give_back(worker.place.node_id, worker.shape)

    def _do(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _await_ready(self, worker: PoolWorker, loads: bool) -> None:
        try:
            place = await worker.handle.ready.remote()
        except RayError as error:
            self.problem = self.problem or import_problem(error)
            self._fail_waiting(worker, error)
            return
        if worker not in self._workers:
            return
        if place.problem:
            self.problem = self.problem or place.problem
            self._end_worker(worker)
            return
        if loads:
            worker.handle.load.remote()
        worker.place = place
        worker.since = time.monotonic() + (WARM_SECONDS if loads else 0.0)
        self._dispatch_soon()

    def _fail_waiting(self, worker: PoolWorker, error: Exception) -> None:
        """A process that does not come up: fail one request for its shape, which may ask again. One
        that was ended here before it came up fails none."""
        if worker not in self._workers:
            return
        self._workers.remove(worker)
        for request in self._queue:
            if request.shape == worker.shape and not request.future.cancelled():
                self._queue.remove(request)
                request.future.set_exception(error)
                break
        self._dispatch_soon()


def _asks(shape: Shape) -> frozenset[str]:
    return shape.names | {SLOT}
