"""The engine without Ray: workers are stand-ins that answer in an order of their own, die at any
moment, and are killed with what they hold. What the trials report of each epoch is checked."""

from __future__ import annotations

import asyncio
import math
import random
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.exceptions import RayActorError, RayTaskError

from magtkd.config import Config
from magtkd.data import read_corpus
from magtkd.metrics import Report
from magtkd.pipeline import Outcome, StageRecord, source_of
from tune.cluster import Node
from tune.engine import engine as engine_module
from tune.engine import pool as pool_module
from tune.engine import pool_worker as pool_worker_module
from tune.engine import upstream as upstream_module
from tune.engine.engine import Engine
from tune.engine.handles import SessionOpened
from tune.engine.messages import (
    Failure,
    Moved,
    StageDone,
    Step,
    TrialRequest,
    WorkerPlace,
    WorkerSession,
)
from tune.space import Candidate

STAGE = {"epochs": 1, "hidden_dim": 8}
BASE = {
    "data": {"synthetic": {"num_dialogues": 8, "mean_length": 3}},
    "teacher": STAGE,
    "audio": STAGE,
    "video": STAGE,
    "fusion": STAGE | {"model": "concat"},
}
NUM_EPOCHS = 6
MOST_KILLS = 6
"""Of workers and nodes: as many may hit one trial between two of its epochs."""


class Loop(asyncio.SelectorEventLoop):
    """Time passes when nothing else is to be done."""

    now = 0.0

    def time(self):
        return self.now

    def _run_once(self):
        if not self._ready and self._scheduled:
            self.now = max(self.now, self._scheduled[0]._when)
        super()._run_once()


class StandIn:
    """A worker: its calls are done one after another, each after a while."""

    def __init__(self, cluster, shape):
        self.cluster, self.shape = cluster, shape
        self.node, self.is_dead = None, False
        self.sessions, self.moved = {}, set()
        self.calls = asyncio.Queue()
        self.pending = set()
        self.task = asyncio.ensure_future(self._run())
        self.handle = SimpleNamespace(
            **{
                name: SimpleNamespace(remote=self._remote(name))
                for name in (
                    "ready",
                    "load",
                    "open",
                    "advance",
                    "export",
                    "checkpoint",
                    "save",
                    "close",
                )
            },
            train=SimpleNamespace(remote=self._train),
            of=self,
        )

    def _remote(self, name):
        def remote(*arguments):
            future = asyncio.get_running_loop().create_future()
            if self.is_dead:
                future.set_exception(RayActorError())
            else:
                self.pending.add(future)
                self.calls.put_nowait((future, name, arguments))
            future.add_done_callback(lambda done: done.cancelled() or done.exception())
            return future

        return remote

    async def _run(self):
        while self.node is None:
            await asyncio.sleep(0.01)
        while True:
            future, name, arguments = await self.calls.get()
            slower = self.cluster.slower if name == "advance" else 1
            await asyncio.sleep(slower * self.cluster.draw(0.0, 0.3))
            try:
                result = getattr(self, "_" + name)(*arguments)
            except Exception as error:
                if not future.cancelled():
                    future.set_exception(RayTaskError(name, "wrong", error))
            else:
                if not future.cancelled():
                    future.set_result(result)
            self.pending.discard(future)

    def die(self):
        if self.is_dead:
            return
        self.is_dead = True
        self.cluster.workers.remove(self)
        self.task.cancel()
        for future in self.pending:
            if not future.done():
                future.set_exception(RayActorError())
        self.cluster.place()

    # what a worker does

    def _ready(self):
        return WorkerPlace(node_id=self.node.id, host=self.node.name)

    def _load(self):
        return None

    def _train(self, request, names, *tables):
        done = self._remote("trained")(request)
        table = asyncio.get_running_loop().create_future()
        table.set_result(request.stage)
        return done, table

    def _trained(self, request):
        key = request.plan.keys[request.stage]
        return StageDone(StageRecord(key, Outcome.TRAINED, 1.0), 10)

    def _open(self, request, names, *tables):
        saved = self.cluster.saved
        epoch = request.checkpoint
        if epoch is None:
            epoch = saved.get(request.checkpoint_name, b"\0")
        else:
            saved[request.checkpoint_name] = max(epoch, saved.get(request.checkpoint_name, b"\0"))
        self.sessions[request.session] = SimpleNamespace(
            epoch=epoch[0], name=request.checkpoint_name
        )
        self.moved.discard(request.session)
        reports = [Report(one, {"x": float(one)}) for one in range(1, epoch[0] + 1)]
        return WorkerSession(reports, 0.0, {})

    def _advance(self, session, stops):
        if session in self.moved:
            return Moved()
        held = self.sessions[session]
        assert held.epoch < NUM_EPOCHS
        held.epoch += 1
        if self.cluster.draw(0, 1) < 0.5:
            self._save(session)
        final = {"done": True} if held.epoch == NUM_EPOCHS else None
        return [Step(held.epoch, {"x": float(held.epoch)}, 0.0, final)]

    def _export(self, session):
        held = self.sessions.get(session)
        if held is None or held.epoch == NUM_EPOCHS:
            return None
        del self.sessions[session]
        self.moved.add(session)
        return bytes([held.epoch])

    def _checkpoint(self, session):
        if session in self.moved:
            return Moved()
        self._save(session)
        return bytes([self.sessions[session].epoch])

    def _save(self, session):
        if session in self.sessions:
            held = self.sessions[session]
            if held.epoch < NUM_EPOCHS:
                self.cluster.saved[held.name] = bytes([held.epoch])

    def _close(self, session):
        self.sessions.pop(session, None)
        self.moved.discard(session)


class Cluster:
    """Workers on nodes, as Ray places them, and the sessions that the store has."""

    def __init__(self, nodes, generator):
        self.nodes, self.random = list(nodes), generator
        self.workers, self.saved = [], {}
        self.slower = generator.choice([1, 1, 10, 40])

    def draw(self, low, high):
        return self.random.uniform(low, high)

    def start(self, shape):
        worker = StandIn(self, shape)
        self.workers.append(worker)
        self.place()
        return worker.handle

    def kill(self, handle):
        handle.of.die()

    def left(self, node):
        left = dict(node.totals)
        for worker in self.workers:
            if worker.node is node:
                for name, amount in worker.shape.amounts:
                    left[name] -= amount
        return left

    def place(self):
        for worker in self.workers:
            for node in self.nodes:
                is_free = node.fits(worker.shape) and not worker.shape.lacks(self.left(node))
                if worker.node is None and is_free:
                    worker.node = node

    def add(self, node):
        self.nodes.append(node)
        self.place()

    def remove(self, node):
        self.nodes.remove(node)
        for worker in [one for one in self.workers if one.node is node]:
            worker.die()


class Trial:
    """What a trial does, as `tune.trial`."""

    def __init__(self, engine, number):
        self.engine, self.number = engine, number
        self.opened, self.checkpoint, self.past = None, None, []
        self.epoch, self.num_failures = 0, 0
        self.reported, self.is_done = [], False

    async def open(self):
        request = TrialRequest(
            trial=self.number,
            candidate=Candidate(values={"fusion.dropout": self.number / 100}),
            checkpoint=self.checkpoint,
        )
        opened = await asyncio.shield(asyncio.ensure_future(self.engine.open(request)))
        self.checkpoint = None
        if isinstance(opened, Failure):
            raise AssertionError(opened)
        assert isinstance(opened, SessionOpened)
        self.opened = opened
        self.past = [report.epoch for report in opened.reports if report.epoch > self.epoch]

    async def step(self):
        while True:
            try:
                epoch = await self._step()
            except RayActorError:
                self.num_failures += 1
                self.opened = None
                assert self.num_failures <= MOST_KILLS
                await self.engine.worker_died(self.number)
                continue
            if epoch > self.epoch:
                self.epoch, self.num_failures = epoch, 0
            self.reported.append(epoch)
            return

    async def _step(self):
        while True:
            if self.opened is None:
                await self.open()
            if self.past:
                return self.past.pop(0)
            done = await self.opened.worker.advance.remote(self.opened.session, ())
            if isinstance(done, Moved):
                self.opened = None
                continue
            (step,) = done
            self.is_done = step.final is not None
            return step.epoch

    async def pause(self):
        while True:
            try:
                found = await self.opened.worker.checkpoint.remote(self.opened.session)
            except RayActorError:
                return self.restarted()
            if not isinstance(found, Moved):
                break
            await self.open()
        await self.close()
        again = Trial(self.engine, self.number)
        again.epoch, again.checkpoint, again.reported = self.epoch, found, self.reported
        return again

    def restarted(self):
        """Its process died; Ray Tune starts another one."""
        again = Trial(self.engine, self.number)
        again.reported = self.reported
        return again

    async def close(self):
        if self.opened is not None:
            await self.engine.close(self.number, self.opened.session)
        self.opened = None


def node(name, **totals):
    return Node(name=name, id=name, totals={one: float(much) for one, much in totals.items()})


def run(test, tmp_path, nodes, seed=0, **limits):
    """Run a test with an engine on a cluster."""
    loop = Loop()
    cluster = Cluster(nodes, random.Random(seed))

    async def inline(function, *arguments, **named):
        await asyncio.sleep(0)
        return function(*arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        actor = SimpleNamespace(
            options=lambda **options: SimpleNamespace(
                remote=lambda address, shape, *rest, **named: cluster.start(shape)
            )
        )
        patch.setattr(engine_module, "WorkerActor", actor)
        patch.setattr(engine_module.ray, "kill", cluster.kill)
        patch.setattr(engine_module, "live_nodes", lambda: tuple(cluster.nodes))
        patch.setattr(upstream_module.ray, "put", lambda value: value)
        clock = SimpleNamespace(monotonic=loop.time)
        for module in (engine_module, pool_module, pool_worker_module, upstream_module):
            patch.setattr(module, "time", clock)
        patch.setattr(asyncio, "to_thread", inline)

        async def act():
            base = Config.model_validate(BASE | {"resources": limits})
            engine = Engine(str(tmp_path), base, source_of(read_corpus(base.data)), "sweep")
            await asyncio.wait_for(test(engine, cluster), 10000)

        try:
            loop.run_until_complete(act())
        finally:
            for task in asyncio.all_tasks(loop):
                task.cancel()
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()


async def whole(trial, actions=None, dies=lambda: None):
    """A trial from its start to its end; `actions` yields what happens between two epochs."""
    while not trial.is_done:
        seconds = dies()
        if seconds is not None:
            try:
                await asyncio.wait_for(trial.step(), seconds)
            except TimeoutError:
                trial = trial.restarted()
                continue
        else:
            await trial.step()
        if actions is not None and not trial.is_done:
            trial = await actions(trial)
    await trial.close()
    await trial.engine.end(trial.number)
    return trial


NODE = node("h1", CPU=1)
OTHER = node("h2", CPU=1)


async def until(condition):
    while not condition():
        await asyncio.sleep(0.01)


async def two_that_share(engine, cluster):
    """Two trials whose sessions share a worker; another one comes up, and nothing moves yet."""
    engine._pool._move_from = math.inf
    trials = [Trial(engine, number) for number in range(2)]
    for trial in trials:
        await trial.step()
    source = engine._held[0].worker
    assert engine._held[1].worker is source
    cluster.add(OTHER)
    await until(lambda: any(one.is_idle for one in engine._pool._workers))
    (target,) = (one for one in engine._pool._workers if one.is_idle)
    return trials, source, target


def moving(engine, trial, source, target):
    session = engine._held[trial.number].session
    target.sessions.add(session)
    return asyncio.ensure_future(engine._pool._move_one(session, source, target))


def test_a_session_does_not_move_on_before_its_trial_knows(tmp_path):
    """Else the trial might never learn of either move, and one that is started for it then gets
    the session as it was."""

    async def test(engine, cluster):
        (trial, other), source, target = await two_that_share(engine, cluster)
        await moving(engine, trial, source, target)
        assert engine._held[0].worker is target
        await moving(engine, trial, target, source)
        assert engine._held[0].worker is target
        await trial.step()
        await trial.opened.worker.advance.remote(trial.opened.session, ())  # and its process dies
        again = trial.restarted()
        while not again.is_done:
            await again.step()
        assert list(dict.fromkeys(again.reported)) == list(range(1, NUM_EPOCHS + 1))
        await whole(other)

    run(test, tmp_path, [NODE])


def test_a_trial_that_is_started_again_while_the_last_one_still_asks_has_its_session(tmp_path):
    async def test(engine, cluster):
        (trial, other), source, target = await two_that_share(engine, cluster)
        move = moving(engine, trial, source, target)
        await asyncio.sleep(0)
        source.handle.of.die()
        first = asyncio.ensure_future(trial.restarted().open())
        await asyncio.sleep(0)
        again = trial.restarted()
        await again.open()
        await asyncio.gather(move, first)
        while not again.is_done:
            await again.step()
        await again.close()
        await whole(other)

    run(test, tmp_path, [NODE])


def test_a_session_on_its_way_is_saved_once_it_has_arrived(tmp_path):
    async def test(engine, cluster):
        (trial, other), source, target = await two_that_share(engine, cluster)
        cluster.saved.clear()
        for _ in range(20):
            target.handle.load.remote()  # it has something else to do first
        move = moving(engine, trial, source, target)
        await asyncio.sleep(0)
        assert await engine.save() == 0
        assert len(cluster.saved) == 2
        await move
        for one in (trial, other):
            await whole(one)

    run(test, tmp_path, [NODE])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_each_epoch_is_reported_whatever_happens(tmp_path_factory, seed):
    """Trials are paused, and die at any moment, workers and nodes die, and nodes join."""
    generator = random.Random(seed)

    async def between(trial):
        kind = generator.random()
        if kind < 0.05:
            return await trial.pause()
        return trial.restarted() if kind < 0.1 else trial

    def dies():
        return generator.uniform(0, 30) if generator.random() < 0.1 else None

    async def test(engine, cluster):
        trials = [Trial(engine, number) for number in range(2, 7)]
        trials = trials[: generator.randint(2, 5)]
        tasks = [asyncio.ensure_future(whole(trial, between, dies)) for trial in trials]
        num_nodes, num_kills = 1, 0
        while not all(task.done() for task in tasks):
            await asyncio.sleep(generator.uniform(0.0, 3.0))
            kind = generator.random()
            if kind < 0.1 and cluster.workers and num_kills < MOST_KILLS:
                num_kills += 1
                generator.choice(cluster.workers).die()
            elif kind < 0.2 and len(cluster.nodes) < 4:
                num_nodes += 1
                cluster.add(node(f"h{num_nodes}", CPU=generator.randint(1, 2)))
            elif kind < 0.3 and len(cluster.nodes) > 1 and num_kills < MOST_KILLS:
                num_kills += 1
                cluster.remove(generator.choice(cluster.nodes[1:]))
        for task in tasks:
            first = list(dict.fromkeys((await task).reported))
            assert first == list(range(1, NUM_EPOCHS + 1))
        assert not engine._held
        assert not engine._moves
        assert not any(worker.sessions for worker in engine._pool._workers)
        await asyncio.sleep(30)
        assert not cluster.workers

    limits = {"idle_seconds": generator.choice([0, 1, 10])}
    if generator.random() < 0.3:
        limits["max_workers"] = generator.randint(1, 3)
    run(test, tmp_path_factory.mktemp("store"), [node("h1", CPU=2)], seed, **limits)
