"""The worker: a Ray actor that trains upstream stages and holds fusion sessions.

One actor class for both, because processes that load torch are expensive to start: a worker that
has just trained a student holds fusion sessions a moment later. A stage's own error is returned as
a `Failure`; only what happens to the process is raised, by Ray.
"""

from __future__ import annotations

import contextlib
import dataclasses
from dataclasses import dataclass
from typing import Any

import ray

from magtkd.config import Config
from magtkd.errors import StorageLostError
from magtkd.memory import memory_named
from magtkd.pipeline import (
    Plan,
    Trainer,
    describe_stage,
    stage_checkpoints,
    train_stage,
    trained_record,
)
from magtkd.store import Artifact, Checkpoints, Store
from tune.engine.messages import (
    Failure,
    SessionRequest,
    StageDone,
    StageRequest,
    Step,
    WorkerSession,
    failure_of,
)

__all__ = ["Worker", "WorkerActor"]


@dataclass(kw_only=True)
class _OpenSession:
    """A fusion session with what its artifact and its checkpoints will need."""

    session: Any
    data: Artifact
    plan: Plan
    config: Config
    checkpoints: Checkpoints

    @property
    def is_under_way(self) -> bool:
        """Whether there is something to lose: epochs, and no artifact of them yet."""
        return not self.session.is_done and self.session.epoch > 0

    def save(self) -> None:
        """Save a checkpoint of the session now."""
        if self.is_under_way:
            self.checkpoints.save(self.session.checkpoint())


class Worker:
    """Trains stages and advances fusion sessions, one call at a time.

    Args:
        storage: address of the store.
        threads: with how many threads to compute.
        trainer: opens sessions; `CORE_TRAINER` but for tests of the machinery around it.
        sweep_id: the sweep, which artifacts name among their metrics.
    """

    def __init__(self, storage: str, threads: int, trainer: Trainer, sweep_id: str) -> None:
        import torch

        torch.set_num_threads(threads)
        self._store, self._sweep_id = Store(storage), sweep_id
        self._trainer = trainer
        self._sessions: dict[str, _OpenSession] = {}

    def ready(self) -> bool:
        """Answers when the process is up."""
        return True

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
            given = dict(zip(names, upstream, strict=True))
            artifact = train_stage(
                stage,
                request.config,
                plan,
                given,
                checkpoints=checkpoints,
                trainer=self._trainer,
                scratch=self._store.local_path("tmp"),
            )
            artifact.metrics["sweep"] = self._sweep_id
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
        return WorkerSession(session.reports, session.seconds)

    def advance(self, session_id: str) -> Step | Failure:
        """Train one epoch; after the last one, write the artifact."""
        opened = self._sessions[session_id]
        try:
            with memory_named("fusion", opened.config.fusion):
                report = opened.session.advance()
            final = self._finish(opened) if opened.session.is_done else None
            opened.checkpoints.offer(opened.session)
        except Exception as error:
            return failure_of("fusion", error)
        return Step(report.epoch, report.metrics, opened.session.seconds, final)

    def _finish(self, opened: _OpenSession) -> dict[str, Any]:
        artifact: Artifact = self._trainer.artifact_of(
            opened.session.result(),
            "fusion",
            opened.plan.fusion_key,
            opened.data,
            describe_stage("fusion", opened.config, opened.plan),
        )
        artifact.metrics["sweep"] = self._sweep_id
        self._store.write(artifact)
        return artifact.metrics

    def checkpoint(self, session_id: str) -> bytes:
        """The session as bytes that `open` continues from. The store gets them as well, since the
        trial is being paused, or another one continues its session."""
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


WorkerActor: Any = ray.remote(max_restarts=0, max_concurrency=1)(Worker)
