"""The worker: a Ray actor that trains upstream stages and holds fusion sessions.

One actor class for both, because processes that load torch are expensive to start: a worker that
has just trained a student holds fusion sessions a moment later. A stage's own error is returned as
a `Failure`; only what happens to the process is raised, by Ray.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError

from magtkd.config import Config, Resources
from magtkd.errors import StorageLostError
from magtkd.memory import memory_named
from magtkd.metrics import Report
from magtkd.pipeline import (
    Plan,
    Trainer,
    describe_stage,
    find_stage,
    stage_checkpoints,
    train_stage,
    trained_record,
)
from magtkd.store import Artifact, Checkpoints, Store
from tune.cluster import Shape, report_node
from tune.engine.handles import find_engine
from tune.engine.messages import (
    Failure,
    Moved,
    SessionRequest,
    StageDone,
    StageProgress,
    StageRequest,
    Step,
    WorkerPlace,
    WorkerSession,
    ends_batch,
    failure_of,
)

__all__ = ["Worker", "WorkerActor"]

BATCH_SECONDS = 0.5
"""After this time no other epoch is begun before those that were trained are reported: other
sessions on the same worker wait for that long, and so does a signal to save."""
PROGRESS_SECONDS = 1.0
"""The least time between two reports of a stage's progress."""
VISIBLE_DEVICES = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")


@dataclass(kw_only=True)
class _OpenSession:
    """A fusion session with what its artifact and its checkpoints will need."""

    session: Any
    data: Artifact
    plan: Plan
    config: Config
    checkpoints: Checkpoints
    failure: Failure | None = None
    """Why it cannot be trained on."""

    @property
    def is_under_way(self) -> bool:
        """Whether there is something to lose: epochs, and no artifact of them yet. What failed in
        the middle of an epoch continues from an earlier checkpoint."""
        return not self.session.is_done and self.session.epoch > 0 and self.failure is None

    def save(self) -> None:
        """Save a checkpoint of the session now."""
        if self.is_under_way:
            self.checkpoints.save(self.session.checkpoint())


class Worker:
    """Trains stages and advances fusion sessions, one call at a time.

    Args:
        storage: address of the store.
        shape: what it has of its node. Where that has no GPU, it sees none.
        trainer: opens sessions; `CORE_TRAINER` but for tests of the machinery around it.
        sweep_id: the sweep, which artifacts name among their metrics.
        token_name: a file in the store that the node must see; None for none.
        paths: files and folders that the node must have.
    """

    def __init__(
        self,
        storage: str,
        shape: Shape,
        trainer: Trainer,
        sweep_id: str,
        *,
        token_name: str | None = None,
        paths: Sequence[str] = (),
    ) -> None:
        if not shape.amount("GPU"):
            # Ray hides them only from actors on nodes that were started with a setting of its own.
            os.environ |= dict.fromkeys(VISIBLE_DEVICES, "")
        self._store, self._shape, self._sweep_id = Store(storage), shape, sweep_id
        self._trainer, self._token_name, self._paths = trainer, token_name, paths
        self._sessions: dict[str, _OpenSession] = {}
        self._moved: set[str] = set()

    def ready(self) -> WorkerPlace:
        """Answers when the process is up. It has not loaded torch yet: it may still be ended for
        one that is wanted more."""
        node_id = ray.get_runtime_context().get_node_id()
        problem = ""
        if self._token_name is not None:
            report = report_node(self._store.address, self._token_name, self._paths)
            problem = report.problem(self._store.address)
        return WorkerPlace(node_id=node_id, host=socket.gethostname(), problem=problem)

    def load(self) -> None:
        """Load torch, before any work: the first call that computes does it else."""
        import torch

        torch.set_num_threads(Resources(cpu=self._shape.amount("CPU")).num_threads)

    @functools.cached_property
    def _place(self) -> dict[str, Any]:
        """What an artifact's metrics say of where it was trained: for which sweep, on which host,
        on what kind of device, and with how much of it."""
        import torch

        device, share = "CPU", self._shape.amount("CPU")
        if self._shape.amount("GPU"):
            share = self._shape.amount("GPU")
            device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "GPU"
        return {
            "sweep": self._sweep_id,
            "host": socket.gethostname(),
            "device": device,
            "share": share,
        }

    def _reporter(self, request: StageRequest) -> Callable[[Report], None]:
        """What tells the engine of each epoch, at most once a second."""
        section: Any = find_stage(request.stage).section(request.config)
        key, last = request.plan.keys[request.stage], -math.inf
        select = getattr(section, "select", "")

        def report(done: Report) -> None:
            nonlocal last
            if time.monotonic() - last < PROGRESS_SECONDS:
                return
            last = time.monotonic()
            metric = f"dev/{select}"
            progress = StageProgress(done.epoch, section.epochs, metric, done.metrics.get(metric))
            with contextlib.suppress(RayError, ValueError):
                find_engine(self._sweep_id).on_progress.remote(key, progress)

        return report

    @ray.method(num_returns=2)  # type: ignore[untyped-decorator]
    def train(
        self, request: StageRequest, names: list[str], *upstream: Artifact
    ) -> tuple[StageDone | Failure, Artifact | None]:
        """Train a stage to its end and write its artifact.

        Args:
            request: which stage.
            names: of the stages that it reads.
            upstream: their artifacts.

        Returns:
            what was done, and the artifact without its weights.
        """
        stage, plan = request.stage, request.plan
        checkpoints = None
        if request.is_shared:
            checkpoints = stage_checkpoints(self._store, stage, plan.keys[stage])
        try:
            self.load()
            given = dict(zip(names, upstream, strict=True))
            artifact = train_stage(
                stage,
                request.config,
                plan,
                given,
                report=self._reporter(request),
                checkpoints=checkpoints,
                trainer=self._trainer,
                scratch=self._store.local_path("tmp"),
            )
            artifact.metrics.update(self._place)
            artifact = self._store.write(artifact)
            if checkpoints is not None:
                checkpoints.remove()
        except Exception as error:
            return failure_of(stage, error), None
        light = dataclasses.replace(artifact, weights=b"")
        warnings = tuple(artifact.metrics.get("warnings", ()))
        record = trained_record(artifact.key, artifact.metrics)
        return StageDone(record, artifact.table.nbytes, warnings), light

    def open(
        self, request: SessionRequest, names: list[str], *upstream: Artifact
    ) -> WorkerSession | Failure:
        """Open a fusion session: at the checkpoint of the request, where it has one; else at the
        last one under its name; else at its start.

        Args:
            request: which session.
            names: of the stages that fusion reads.
            upstream: their artifacts.
        """
        config, checkpoint = request.config, request.checkpoint
        checkpoints = Checkpoints(self._store, request.checkpoint_name)
        try:
            self.load()
            given = dict(zip(names, upstream, strict=True))
            with memory_named("fusion", config.fusion):
                session = self._trainer.open_session("fusion", config, given)
                checkpoint, is_new = checkpoint or checkpoints.load(), checkpoint is not None
                if checkpoint is not None:
                    session.restore(checkpoint)
            opened = _OpenSession(
                session=session,
                data=given["data"],
                plan=request.plan,
                config=config,
                checkpoints=checkpoints,
            )
            if is_new:
                opened.save()  # it may be another trial's, whose name is not looked under
        except Exception as error:
            return failure_of("fusion", error)
        self._sessions[request.session] = opened
        self._moved.discard(request.session)
        return WorkerSession(session.reports, session.seconds, self._place)

    def advance(self, session_id: str, stops: Sequence[int]) -> list[Step] | Failure | Moved:
        """Train one epoch, and more where they are short; after the last one, write the artifact.

        Args:
            session_id: which session.
            stops: epochs after which the scheduler must be asked; see `ends_batch`.
        """
        if session_id in self._moved:
            return Moved()
        opened = self._sessions[session_id]
        if opened.failure is not None:
            return opened.failure
        steps = list[Step]()
        end = time.monotonic() + BATCH_SECONDS
        while True:
            try:
                step = self._train_epoch(opened)
            except Exception as error:
                opened.failure = failure_of("fusion", error)
                # The epochs before it count; the next call hears of it.
                return steps or opened.failure
            steps.append(step)
            is_last = step.final is not None or time.monotonic() >= end
            if is_last or ends_batch(step.epoch, step.metrics, stops):
                return steps

    def _train_epoch(self, opened: _OpenSession) -> Step:
        with memory_named("fusion", opened.config.fusion):
            report = opened.session.advance()
        final = self._finish(opened) if opened.session.is_done else None
        opened.checkpoints.offer(opened.session)
        return Step(report.epoch, report.metrics, opened.session.seconds, final)

    def _finish(self, opened: _OpenSession) -> dict[str, Any]:
        artifact: Artifact = self._trainer.artifact_of(
            opened.session.result(),
            "fusion",
            opened.plan.fusion_key,
            opened.data,
            describe_stage("fusion", opened.config, opened.plan),
        )
        artifact.metrics.update(self._place)
        self._store.write(artifact)
        return artifact.metrics

    def export(self, session_id: str) -> bytes | None:
        """The session as bytes for another worker; it is no longer here. None where it is not, is
        done, or has failed."""
        opened = self._sessions.get(session_id)
        if opened is None or opened.session.is_done or opened.failure is not None:
            return None
        checkpoint: bytes = opened.session.checkpoint()
        del self._sessions[session_id]
        self._moved.add(session_id)
        return checkpoint

    def checkpoint(self, session_id: str) -> bytes | Moved:
        """The session as bytes that `open` continues from. The store gets them as well, since the
        trial is being paused, or another one continues its session."""
        if session_id in self._moved:
            return Moved()
        opened = self._sessions[session_id]
        checkpoint: bytes = opened.session.checkpoint()
        if opened.is_under_way:
            with contextlib.suppress(StorageLostError):
                opened.checkpoints.save(checkpoint)
        return checkpoint

    def save(self, session_id: str) -> None:
        """Save a checkpoint of a session in the store, if it is here."""
        if session_id in self._sessions:
            self._sessions[session_id].save()

    def close(self, session_id: str) -> None:
        """Forget a session."""
        self._sessions.pop(session_id, None)
        self._moved.discard(session_id)


WorkerActor: Any = ray.remote(max_restarts=0, max_concurrency=1)(Worker)
