"""The pool without Ray: a stand-in places workers on nodes as Ray does, in any order it likes, and
each comes up when the test lets it."""

from __future__ import annotations

import asyncio
import math
from types import SimpleNamespace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from ray.exceptions import ActorDiedError, ObjectLostError, RayActorError, RayError, RayTaskError

from magtkd.config import Resources
from tune.cluster import Node, Shape, shape_of
from tune.engine import pool as pool_module
from tune.engine.handles import import_problem
from tune.engine.messages import PoolCounts, WorkerPlace
from tune.engine.pool import Pool, WorkerDiedError, reason_of
from tune.engine.pool_worker import OVERDUE_SECONDS

ONE = Shape((("CPU", 1.0),))
TWO = Shape((("CPU", 2.0),))
WHOLE_GPU = Shape((("CPU", 1.0), ("GPU", 1.0)))
TENTH_GPU = Shape((("CPU", 1.0), ("GPU", 0.1)))
HALF_GPU = Shape((("CPU", 1.0), ("GPU", 0.5)))
QUARTER_GPU = Shape((("CPU", 1.0), ("GPU", 0.25)))
EPSILON = 1e-6


def node(name, **totals):
    return Node(name=name, id=name, totals={one: float(much) for one, much in totals.items()})


class Cluster:
    """Workers on nodes: asked for, placed where there is room, and up at once unless held back."""

    def __init__(self, *nodes, max_workers=None, idle_seconds=10.0, **totals):
        self.nodes = [*nodes, *([node("h1", **totals)] if totals else [])]
        self.alive = {}
        self.num_started = 0
        self.num_ended_unused = 0
        self.holds_back = False
        self.moves_fail = False
        self.moves = []
        self.order = list
        self.pool = Pool(
            self.start,
            self.end,
            lambda: self.nodes,
            self.move,
            max_workers=max_workers,
            idle_seconds=idle_seconds,
        )

    def start(self, shape):
        ready = asyncio.get_running_loop().create_future()
        handle = SimpleNamespace(
            ready=SimpleNamespace(remote=lambda: ready),
            load=SimpleNamespace(remote=lambda: None),
            future=ready,
            shape=shape,
            node=None,
        )
        self.alive[id(handle)] = handle
        self.place()
        return handle

    def end(self, handle):
        del self.alive[id(handle)]
        if not handle.future.done() and handle.node is not None:
            self.num_ended_unused += 1
        asyncio.get_running_loop().call_soon(self.place)

    def place(self):
        """What Ray does: give pending workers their places, in no order that one may rely on."""
        for handle in self.order([one for one in self.alive.values() if one.node is None]):
            for one in self.order(self.nodes):
                left = {name: one.totals[name] - self.used(one).get(name, 0) for name in one.totals}
                if handle.node is None and one.fits(handle.shape) and not handle.shape.lacks(left):
                    handle.node = one
                    self.num_started += 1
                    if not self.holds_back:
                        self.up(handle)

    def up(self, handle):
        place = WorkerPlace(node_id=handle.node.id, host=handle.node.name)
        handle.future.set_result(place)

    def add(self, new):
        self.nodes.append(new)
        self.place()
        self.pool.look_again()

    async def move(self, session, source, target):
        self.moves.append((session, source, target))
        await asyncio.sleep(0)
        return not self.moves_fail

    def starting(self):
        return [one for one in self.alive.values() if one.node and not one.future.done()]

    def pending(self):
        return [one.shape for one in self.alive.values() if one.node is None]

    def die_at_start(self, handle, error=None):
        del self.alive[id(handle)]
        handle.future.set_exception(error or RayActorError())
        self.place()

    def used(self, node):
        amounts = {}
        for handle in self.alive.values():
            if handle.node is node:
                for name, amount in handle.shape.amounts:
                    amounts[name] = amounts.get(name, 0.0) + amount
        return amounts


async def settle():
    for _ in range(10):
        await asyncio.sleep(0)


def request(cluster, shape, session=None):
    return asyncio.get_running_loop().create_task(cluster.pool.acquire(shape, session))


def asynchronous(test):
    def run():
        asyncio.run(asyncio.wait_for(test(), 10))

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


def test_a_shape_names_what_is_asked_for():
    shape = shape_of(Resources(cpu=2, gpu=0.5, memory="3KB"))
    assert shape == Shape((("CPU", 2.0), ("GPU", 0.5), ("memory", 3000.0)))
    assert shape_of(Resources(cpu=0.5)) == Shape((("CPU", 0.5),))


@asynchronous
async def test_an_idle_worker_is_used_again():
    cluster = Cluster(CPU=2)
    worker = await cluster.pool.acquire(ONE)
    cluster.pool.release(worker)
    assert await cluster.pool.acquire(ONE) is worker
    cluster.pool.release(worker)
    assert await cluster.pool.acquire(ONE, session="a") is worker
    assert cluster.num_started == 1


@asynchronous
async def test_requests_are_served_in_order():
    cluster = Cluster(CPU=1)
    order = []

    async def train(name):
        worker = await cluster.pool.acquire(ONE)
        order.append(name)
        await asyncio.sleep(0)
        cluster.pool.release(worker)

    await asyncio.gather(*(train(name) for name in "abcde"))
    assert order == list("abcde")
    assert cluster.num_started == 1


@asynchronous
async def test_workers_start_side_by_side_as_far_as_there_is_room():
    cluster = Cluster(CPU=3)
    workers = await asyncio.gather(*(cluster.pool.acquire(ONE) for _ in range(3)))
    assert len(set(map(id, workers))) == 3
    fourth = request(cluster, ONE)
    await settle()
    assert not fourth.done()
    assert cluster.pool.counts().waiting == 1
    cluster.pool.release(workers[1])
    assert await fourth is workers[1]


@asynchronous
async def test_one_worker_is_started_for_one_request():
    cluster = Cluster(CPU=5)
    cluster.holds_back = True
    first = request(cluster, ONE)
    await settle()
    second = request(cluster, ONE)
    await settle()
    assert cluster.num_started == 2
    for handle in cluster.starting():
        cluster.up(handle)
    assert (await first) is not (await second)


@asynchronous
async def test_workers_are_warmed_up_as_far_as_there_is_room():
    cluster = Cluster(CPU=2)
    cluster.pool.warm_up(ONE, 3)
    assert cluster.pool.counts().starting == 2
    workers = await asyncio.gather(*(cluster.pool.acquire(ONE) for _ in range(2)))
    assert len(set(map(id, workers))) == cluster.num_started == 2


@asynchronous
async def test_a_teacher_that_needs_the_whole_gpu_is_not_starved():
    cluster = Cluster(CPU=8, GPU=1)
    sessions = {name: await cluster.pool.acquire(TENTH_GPU, session=name) for name in "abc"}
    teacher = request(cluster, WHOLE_GPU)
    await settle()
    late = request(cluster, TENTH_GPU, session="late")
    free = request(cluster, ONE)
    await settle()
    # What asks for a GPU waits behind the teacher; the others continue.
    assert not teacher.done()
    assert not late.done()
    cluster.pool.release(await free)
    for name, worker in sessions.items():
        assert not teacher.done()
        cluster.pool.release(worker, name)
        await settle()
    worker = await teacher
    assert not late.done()
    cluster.pool.release(worker)
    assert (await late).shape == TENTH_GPU


class TwoGpus(Cluster):
    """A share is of one device, the fullest that has room, as Ray gives them."""

    def place(self):
        for handle in [one for one in self.alive.values() if one.node is None]:
            left = {"0": 1.0, "1": 1.0}
            for other in self.alive.values():
                if other.node is not None:
                    left[other.device] -= other.shape.amount("GPU")
            asked = handle.shape.amount("GPU")
            fitting = [name for name in left if left[name] >= asked - EPSILON]
            if fitting:
                handle.node, handle.device = self.nodes[0], min(fitting, key=left.__getitem__)
                self.up(handle)


@asynchronous
async def test_a_teacher_is_not_starved_by_shares_of_several_gpus():
    """Half of each of two is left: as much as one, and none that is whole."""
    cluster = TwoGpus(CPU=16, GPU=2, idle_seconds=0)
    held = {str(number): await cluster.pool.acquire(HALF_GPU, str(number)) for number in range(4)}
    for device in "01":
        name = next(name for name, one in held.items() if one.handle.device == device)
        cluster.pool.release(held.pop(name), name)
    teacher = request(cluster, WHOLE_GPU)
    await settle()
    for worker in cluster.pool._workers:
        worker.since -= OVERDUE_SECONDS
    late = request(cluster, HALF_GPU, "late")
    await settle()
    assert not late.done()
    for name, worker in held.items():
        cluster.pool.release(worker, name)
    await asyncio.sleep(0.01)
    cluster.pool.look_again()
    cluster.pool.release(await teacher)
    await late


@asynchronous
async def test_idle_workers_of_other_shapes_make_room():
    cluster = Cluster(CPU=2)
    small = [await cluster.pool.acquire(ONE) for _ in range(2)]
    large = request(cluster, TWO)
    await settle()
    assert not large.done()
    cluster.pool.release(small[0])
    await settle()
    assert not large.done()
    cluster.pool.release(small[1])
    assert (await large).shape == TWO
    assert len(cluster.alive) == 1


@asynchronous
async def test_only_as_many_idle_workers_are_ended_as_needed():
    cluster = Cluster(CPU=4)
    workers = [await cluster.pool.acquire(ONE) for _ in range(4)]
    for worker in workers[:3]:
        cluster.pool.release(worker)
    await cluster.pool.acquire(TWO)
    assert cluster.pool.counts().idle == 1


@asynchronous
async def test_sessions_share_a_worker_where_there_is_no_room():
    cluster = Cluster(CPU=2)
    workers = [await cluster.pool.acquire(ONE, session=str(number)) for number in range(5)]
    assert len({id(worker) for worker in workers}) == 2
    assert sorted(len(worker.sessions) for worker in {id(w): w for w in workers}.values()) == [2, 3]
    for number, worker in enumerate(workers):
        cluster.pool.release(worker, str(number))
    await settle()
    assert cluster.pool.counts() == PoolCounts(idle=2)


@asynchronous
async def test_a_session_does_not_share_a_worker_that_trains():
    cluster = Cluster(CPU=1)
    training = await cluster.pool.acquire(ONE)
    session = request(cluster, ONE, session="a")
    await settle()
    assert not session.done()
    cluster.pool.release(training)
    assert await session is training


@asynchronous
async def test_a_cancelled_request_keeps_nothing_from_others():
    cluster = Cluster(CPU=2)
    worker = await cluster.pool.acquire(ONE)
    large = request(cluster, TWO)
    small = request(cluster, ONE)
    await settle()
    assert not small.done()
    large.cancel()
    await settle()
    assert (await small) is not worker
    assert large.cancelled()


@asynchronous
async def test_a_request_cancelled_as_it_is_served_gives_its_worker_back():
    cluster = Cluster(CPU=1)
    worker = await cluster.pool.acquire(ONE)
    second = request(cluster, ONE)
    third = request(cluster, ONE)
    await settle()
    cluster.pool.release(worker)  # the second has it, and does not know yet
    second.cancel()
    await settle()
    assert await third is worker


@asynchronous
async def test_a_worker_that_does_not_come_up_fails_one_request_and_no_other():
    cluster = Cluster(CPU=1)
    cluster.holds_back = True
    first, second = request(cluster, ONE), request(cluster, ONE)
    await settle()
    cluster.holds_back = False
    cluster.die_at_start(cluster.starting()[0])
    with pytest.raises(RayActorError, match="actor"):
        await first
    assert (await second).shape == ONE
    assert cluster.num_started == 2


@asynchronous
async def test_a_worker_that_does_not_come_up_for_a_cancelled_request_fails_none():
    cluster = Cluster(CPU=1)
    cluster.holds_back = True
    first, second = request(cluster, ONE), request(cluster, ONE)
    await settle()
    cluster.holds_back = False
    first.cancel()
    cluster.die_at_start(cluster.starting()[0])
    await settle()
    with pytest.raises(RayActorError, match="actor"):
        await second
    assert (await cluster.pool.acquire(ONE)).shape == ONE


@asynchronous
async def test_a_worker_that_died_makes_room():
    cluster = Cluster(CPU=1)
    worker = await cluster.pool.acquire(ONE)
    waiting = request(cluster, ONE)
    await settle()
    cluster.pool.discard(worker)
    assert await waiting is not worker
    cluster.pool.discard(worker)  # two sessions of one worker both find it gone
    assert len(cluster.alive) == 1


@asynchronous
async def test_a_worker_that_is_idle_for_long_is_ended():
    cluster = Cluster(CPU=2)
    worker = await cluster.pool.acquire(ONE)
    busy = await cluster.pool.acquire(ONE)
    cluster.pool.release(worker)
    cluster.pool.look_again()
    assert len(cluster.alive) == 2
    worker.since -= 11
    busy.since -= 11
    cluster.pool.look_again()
    assert list(cluster.alive.values()) == [busy.handle]


# --- demand ---------------------------------------------------------------------------------------


@asynchronous
async def test_a_cluster_that_grows_from_nothing_sees_all_that_waits():
    cluster = Cluster()
    waiting = [request(cluster, WHOLE_GPU) for _ in range(3)]
    await settle()
    assert cluster.pending() == [WHOLE_GPU] * 3
    assert cluster.pool.counts() == PoolCounts(pending=3, waiting=3)
    (wanted,) = cluster.pool.wanted()
    assert (wanted.shape, wanted.number) == (WHOLE_GPU, 3)
    cluster.add(node("h1", CPU=4, GPU=1))
    await settle()
    assert sum(task.done() for task in waiting) == 1
    cluster.add(node("h2", CPU=8, GPU=2))
    workers = await asyncio.gather(*waiting)
    assert {worker.place.host for worker in workers} == {"h1", "h2"}
    assert cluster.pool.wanted() == []


@asynchronous
async def test_whichever_worker_comes_up_first_is_taken():
    cluster = Cluster(CPU=2)
    cluster.holds_back = True
    first, second = request(cluster, ONE), request(cluster, ONE)
    await settle()
    one, other = cluster.starting()
    cluster.up(other)
    assert (await first).handle is other
    cluster.up(one)
    assert (await second).handle is one


@asynchronous
async def test_what_is_no_longer_wanted_is_cancelled():
    cluster = Cluster(CPU=1)
    worker = await cluster.pool.acquire(ONE)
    waiting = [request(cluster, ONE) for _ in range(3)]
    await settle()
    assert cluster.pending() == [ONE] * 3
    for task in waiting[:2]:
        task.cancel()
    await settle()
    assert cluster.pending() == [ONE]
    cluster.pool.release(worker)
    assert await waiting[2] is worker
    assert cluster.pending() == []


@asynchronous
async def test_the_number_of_workers_has_a_limit():
    cluster = Cluster(CPU=8, max_workers=2)
    waiting = [request(cluster, ONE) for _ in range(4)]
    await settle()
    assert len(cluster.alive) == 2
    assert sum(task.done() for task in waiting) == 2
    large = request(cluster, TWO)
    cluster.pool.release(await waiting[0])
    cluster.pool.release(await waiting[1])
    for task in waiting[2:]:
        cluster.pool.release(await task)
    assert (await large).shape == TWO  # an idle one was ended for it
    assert len(cluster.alive) == 2


@asynchronous
async def test_room_is_that_of_one_node_and_not_the_sum():
    cluster = Cluster(node("h1", CPU=1), node("h2", CPU=1), node("h3", CPU=1))
    large, small = request(cluster, TWO), request(cluster, ONE, "a")
    await settle()
    assert not large.done()
    assert not small.done()  # it might take what the large one waits for
    assert cluster.pending() == [TWO]
    large.cancel()
    assert (await small).shape == ONE
    large = request(cluster, TWO)
    cluster.add(node("h4", CPU=2))
    assert (await large).place.host == "h4"


@asynchronous
async def test_idle_workers_are_ended_on_the_node_where_that_is_enough():
    cluster = Cluster(node("h1", CPU=2), node("h2", CPU=2))
    workers = [await cluster.pool.acquire(ONE) for _ in range(4)]
    on = {host: [one for one in workers if one.place.host == host] for host in ("h1", "h2")}
    cluster.pool.release(on["h1"][0])
    for worker in on["h2"]:
        cluster.pool.release(worker)
    assert (await cluster.pool.acquire(TWO)).place.host == "h2"
    assert cluster.pool.counts().idle == 1


@asynchronous
async def test_no_worker_is_started_to_be_ended_unused():
    """One GPU, a whole one for the teacher and a quarter for fusion: what comes first is started,
    and nothing beside it."""
    cluster = Cluster(CPU=8, GPU=1)
    cluster.pool.warm_up(WHOLE_GPU, 1)
    teacher = request(cluster, WHOLE_GPU)
    sessions = [request(cluster, QUARTER_GPU, str(number)) for number in range(4)]
    await settle()
    second = request(cluster, WHOLE_GPU)
    cluster.pool.release(await teacher)
    workers = await asyncio.gather(*sessions, return_exceptions=False)
    for number, worker in enumerate(workers):
        cluster.pool.release(worker, str(number))
    cluster.pool.release(await second)
    assert cluster.num_ended_unused == 0
    assert cluster.num_started <= 1 + 4 + 1 + 3  # and no more than each turn has use for


# --- sessions that move ---------------------------------------------------------------------------


@asynchronous
async def test_sessions_that_share_a_worker_want_one_each_and_move_there():
    cluster = Cluster(node("h1", CPU=1))
    first = await cluster.pool.acquire(ONE, session="0")
    for number in range(1, 6):
        assert await cluster.pool.acquire(ONE, session=str(number)) is first
    assert cluster.pending() == [ONE] * 5
    cluster.add(node("h2", CPU=1))
    await settle()
    await settle()
    sizes = sorted(len(one.sessions) for one in cluster.pool._workers if one.is_ready)
    assert sizes == [3, 3]
    assert len(cluster.moves) == 3
    assert cluster.pending() == [ONE] * 4


@asynchronous
async def test_a_move_that_fails_leaves_the_session_where_the_trial_opens_it():
    cluster = Cluster(node("h1", CPU=1))
    cluster.moves_fail = True
    first = await cluster.pool.acquire(ONE, session="0")
    await cluster.pool.acquire(ONE, session="1")
    cluster.add(node("h2", CPU=1))
    await asyncio.sleep(0.01)
    assert len(cluster.moves) == 1  # it is not tried again at once
    assert first.sessions == {"0", "1"}
    cluster.moves_fail = False
    cluster.pool._move_from -= pool_module.MOVE_SECONDS
    cluster.pool.look_again()
    await asyncio.sleep(0.01)
    assert sorted(len(one.sessions) for one in cluster.pool._workers) == [1, 1]


async def about_to_move(cluster):
    """A pool that has just decided to move a session of a worker that holds two."""
    worker = await cluster.pool.acquire(ONE, session="0")
    await cluster.pool.acquire(ONE, session="1")
    cluster.pool._move_from = math.inf
    cluster.add(node("h2", CPU=1))
    await settle()
    cluster.pool._move_from = -math.inf
    cluster.pool._dispatch()
    assert cluster.pool._moving
    return worker


@asynchronous
async def test_a_worker_to_which_a_session_is_to_move_is_not_ended_before():
    cluster = Cluster(node("h1", CPU=1), idle_seconds=0)
    await about_to_move(cluster)
    cluster.pool.look_again()
    await settle()
    assert len(cluster.moves) == 1
    assert [len(one.sessions) for one in cluster.pool._workers if one.is_ready] == [1, 1]


@asynchronous
async def test_sessions_that_end_just_before_one_moves_do_not_stop_later_moves():
    cluster = Cluster(node("h1", CPU=1))
    worker = await about_to_move(cluster)
    cluster.moves_fail = True  # as where the session is gone
    for name in "01":
        cluster.pool.release(worker, name)
    await settle()
    assert not cluster.pool._moving
    assert not any(one.sessions for one in cluster.pool._workers)


@asynchronous
async def test_a_node_that_cannot_work_ends_all_that_is_new():
    cluster = Cluster(node("h1", CPU=1))
    worker = await cluster.pool.acquire(ONE)
    waiting = request(cluster, ONE)
    await settle()
    cluster.holds_back = True
    cluster.add(node("h2", CPU=1))
    (handle,) = cluster.starting()
    handle.future.set_result(WorkerPlace(node_id="h2", host="h2", problem="no storage"))
    await settle()
    assert cluster.pool.problem == "no storage"
    assert list(cluster.alive.values()) == [worker.handle]
    cluster.pool.release(worker)
    await settle()
    assert not waiting.done()
    assert len(cluster.alive) == 1
    waiting.cancel()


def creation_error(last):
    """As Ray gives it, with the node's address in its first line."""
    text = (
        "ray::Worker.__init__() (pid=7, ip=10.0.0.2, actor_id=ab, repr=<Worker object>)\n"
        "  At least one of the input arguments for this task could not be computed:\n"
        f"traceback: Traceback (most recent call last):\n{last}"
    )
    return ActorDiedError(RayTaskError("Worker.__init__", text, Exception()))


@asynchronous
async def test_what_cannot_be_imported_on_a_node_ends_all_that_is_new():
    """Ray would start one worker after another there."""
    cluster = Cluster(node("h1", CPU=1))
    cluster.holds_back = True
    waiting = request(cluster, ONE)
    await settle()
    error = creation_error("ModuleNotFoundError: No module named 'lab'")
    cluster.die_at_start(cluster.starting()[0], error)
    with pytest.raises(ActorDiedError, match="No module named 'lab'"):
        await waiting
    assert cluster.pool.problem == (
        "node 10.0.0.2: what a stage needs cannot be imported there: ModuleNotFoundError: No "
        "module named 'lab'; install it in the Python that runs Ray on every node"
    )
    again = request(cluster, ONE)
    await settle()
    assert not cluster.alive
    again.cancel()


@pytest.mark.parametrize(
    "error", [creation_error("OSError: x"), RayActorError(), ValueError("ImportError: x")]
)
def test_other_ends_of_a_worker_are_tried_again(error):
    assert import_problem(error) == ""


@asynchronous
async def test_no_session_moves_to_what_a_stage_waits_for():
    cluster = Cluster(node("h1", CPU=2))
    small = [await cluster.pool.acquire(ONE, session=str(number)) for number in range(4)]
    two = {id(worker): worker for worker in small}
    large = request(cluster, TWO)
    await settle()
    one, other = two.values()
    for name in list(one.sessions):
        cluster.pool.release(one, name)
    await settle()
    assert cluster.moves == []
    for name in list(other.sessions):
        cluster.pool.release(other, name)
    assert (await large).shape == TWO


@asynchronous
async def test_a_session_shares_a_worker_where_its_own_does_not_come_up():
    """As where others use the cluster, too."""
    cluster = Cluster(node("h1", CPU=2))
    first = await cluster.pool.acquire(ONE, session="0")
    cluster.holds_back = True
    second = request(cluster, ONE, session="1")
    await settle()
    assert not second.done()
    for worker in cluster.pool._workers:
        worker.since -= OVERDUE_SECONDS
    cluster.pool.look_again()
    assert await second is first


class PoolMachine(RuleBasedStateMachine):
    """Random arrivals, ends, deaths and cancellations, in any order."""

    SHAPES = (ONE, TWO, WHOLE_GPU, TENTH_GPU)

    def __init__(self):
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.cluster = Cluster(CPU=3, GPU=1)
        self.cluster.holds_back = True
        self.cluster.move = self._move
        self.cluster.pool._move = self._move
        self.waiting = {}
        self.held = {}
        self.num_requests = 0

    def _run(self, action=lambda: None):
        async def act():
            result = action()
            await settle()
            return result

        result = self.loop.run_until_complete(act())
        for name, task in list(self.waiting.items()):
            if task.done():
                del self.waiting[name]
                if task.exception() is None:
                    self.held[name] = task.result()
        return result

    @rule(shape=st.sampled_from(SHAPES), is_session=st.booleans())
    def arrive(self, shape, is_session):
        name = f"{'session' if is_session else 'stage'}-{self.num_requests}"
        self.num_requests += 1
        session = name if is_session else None
        self.waiting[name] = self._run(lambda: request(self.cluster, shape, session))
        self._run()

    def _release(self, name):
        worker = self.held.pop(name)
        session = name if name.startswith("session") else None
        self._run(lambda: self.cluster.pool.release(worker, session))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def end_job(self, data):
        self._release(data.draw(st.sampled_from(sorted(self.held))))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def cancel(self, data):
        name = data.draw(st.sampled_from(sorted(self.waiting)))
        task = self.waiting.pop(name)
        self._run(task.cancel)
        assert task.cancelled()

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def worker_dies(self, data):
        worker = self.held[data.draw(st.sampled_from(sorted(self.held)))]
        self.held = {name: other for name, other in self.held.items() if other is not worker}
        self._run(lambda: self.cluster.pool.discard(worker))

    async def _move(self, session, source, target):
        await asyncio.sleep(0)
        if self.held.get(session) is not source:
            return False
        self.held[session] = target
        return True

    @precondition(lambda self: self.cluster.starting())
    @rule(dies=st.integers(0, 3))
    def comes_up(self, dies):
        handle = self.cluster.starting()[0]
        if dies:
            self._run(lambda: self.cluster.up(handle))
        else:
            self._run(lambda: self.cluster.die_at_start(handle))

    @rule(order=st.randoms(use_true_random=False))
    def ray_places_in_another_order(self, order):
        self.cluster.order = lambda some: order.sample(some, len(some))

    @precondition(lambda self: len(self.cluster.nodes) < 3)
    @rule(num_cpus=st.integers(1, 2), num_gpus=st.integers(0, 1))
    def a_node_joins(self, num_cpus, num_gpus):
        name = f"h{len(self.cluster.nodes) + 1}"
        self._run(lambda: self.cluster.add(node(name, CPU=num_cpus, GPU=num_gpus)))

    @invariant()
    def the_stand_in_gives_no_more_than_there_is(self):
        for one in self.cluster.nodes:
            for name, amount in self.cluster.used(one).items():
                assert amount <= one.totals[name] + EPSILON

    @invariant()
    def what_holds_a_session_is_what_the_pool_thinks(self):
        for name, worker in self.held.items():
            if name.startswith("session"):
                assert name in worker.sessions

    @invariant()
    def a_worker_trains_one_stage_or_holds_sessions(self):
        jobs = {}
        for name, worker in self.held.items():
            jobs.setdefault(id(worker), []).append(name)
        for names in jobs.values():
            assert len(names) == 1 or all(name.startswith("session") for name in names)

    @invariant()
    def no_request_is_lost(self):
        assert self.cluster.pool.counts().waiting == len(self.waiting)

    def teardown(self):
        """Every request is served once what runs ends and what starts comes up."""
        try:
            for _ in range(10 * self.num_requests + 10):
                for handle in self.cluster.starting():
                    self._run(lambda handle=handle: self.cluster.up(handle))
                for name in list(self.held):
                    self._release(name)
            assert not self.waiting
            assert self.cluster.pool.counts().waiting == 0
            assert self.cluster.pending() == []
        finally:
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
            self.loop.run_until_complete(settle())
            self.loop.close()


TestPoolMachine = PoolMachine.TestCase
TestPoolMachine.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)


# --- work that is done again where a process dies ---------------------------------------------


def failing(*errors):
    """Work that raises these one after another, then gives 7; and how often it was tried."""
    left, tried = list(errors), []

    async def work(worker):
        tried.append(worker.handle)
        if left:
            raise left.pop(0)
        return 7

    return work, tried


@asynchronous
async def test_work_is_done_again_on_another_worker():
    cluster = Cluster(CPU=2)
    work, tried = failing(RayActorError(), RayActorError())
    worker, result = await cluster.pool.on_worker(ONE, work, 2)
    assert result == 7
    assert worker.is_training
    assert len({id(handle) for handle in tried}) == 3
    assert len(cluster.alive) == 1
    cluster.pool.release(worker)
    assert cluster.pool.counts().idle == 1


@asynchronous
async def test_work_is_given_up_after_as_many_failures_as_allowed():
    cluster = Cluster(CPU=2)
    work, tried = failing(*[RayActorError()] * 5)
    with pytest.raises(WorkerDiedError, match="its worker died 3 times: The actor"):
        await cluster.pool.on_worker(ONE, work, 2)
    assert len(tried) == 3
    assert cluster.pool.counts() == PoolCounts()


@asynchronous
async def test_what_is_not_the_worker_s_fault_gives_it_back():
    for error in (ObjectLostError("0" * 56, None, ""), RayTaskError("work", "wrong", ValueError())):
        cluster = Cluster(CPU=2)
        work, tried = failing(error)
        with pytest.raises(type(error), match=r"."):
            await cluster.pool.on_worker(ONE, work, 2)
        assert len(tried) == 1
        assert cluster.pool.counts().idle == 1


@asynchronous
async def test_idle_workers_of_a_dead_node_are_not_tried_one_after_another():
    cluster = Cluster(CPU=8)
    workers = [await cluster.pool.acquire(ONE) for _ in range(5)]
    for worker in workers:
        cluster.pool.release(worker)
    handles = {id(worker.handle) for worker in workers}
    for worker in workers:
        dead = asyncio.get_running_loop().create_future()
        dead.set_exception(RayActorError())
        worker.handle.ready = SimpleNamespace(remote=lambda dead=dead: dead)

    async def work(worker):
        if id(worker.handle) in handles:
            raise RayActorError
        return 7

    _, result = await cluster.pool.on_worker(ONE, work, 1)
    assert result == 7
    assert len(cluster.alive) == 1


def test_a_death_for_want_of_memory_is_called_that():
    error = RayActorError()
    assert reason_of(error).startswith("The actor experienced")
    text = "The actor died unexpectedly.\n1 worker killed due to memory pressure (OOM), 1 by others"
    assert reason_of(RayError(text)).startswith("out of memory: Ray ended it")
