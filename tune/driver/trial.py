"""The trial: a small Ray Tune trainable that holds no accelerator and imports no torch.

It asks the engine for its stages, then its worker for one fusion epoch after another, and reports
each. A stage's own error ends the trial with a result, never with an exception, which Tune would
retry.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import ray
import ray.tune as ray_tune
from ray.exceptions import RayActorError, RayTaskError

from magtkd.errors import InputError, StorageLostError, first_line
from magtkd.metrics import Report
from magtkd.pipeline import StageRecord, trained_record
from tune.config import SweepConfig
from tune.engine import (
    EngineHandle,
    Failure,
    FailureKind,
    FusionFound,
    Moved,
    SessionOpened,
    Step,
    TrialRequest,
    fetch,
    find_engine,
    reason_of,
)
from tune.space import Assignment, Candidate

__all__ = ["Trial", "TrialResult", "trial_resources"]


def trial_resources() -> dict[str, float]:
    """What a trial asks of the cluster: a place on the driver's node, and no CPU.

    Tune wants a request that is not empty, and 0.001 CPU for each of two trials would leave room
    for one worker on two CPUs. On the driver's node trials can pass their sessions on by files.
    """
    return {f"node:{ray.util.get_node_ip_address()}": 0.001}


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """What a trial reports to the driver. Ray's schedulers read the metrics by name beside it."""

    number: int
    epoch: int
    """0 where the trial ended before it had any."""
    candidate: Candidate
    """As it is now, since population based training may have changed it."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    stages: Mapping[str, StageRecord] = field(default_factory=dict)
    """Records that were not reported before."""
    fusion: StageRecord | None = None
    """The fusion stage so far, where this trial trains it."""
    chosen: Report | None = None
    """The report of the epoch that dev chose, once the trial has completed."""
    failure: Failure | None = None
    """Why the trial cannot continue."""

    KEY = "magtkd"

    def to_ray(self) -> dict[str, Any]:
        """Ray Tune's result."""
        is_over = self.chosen is not None or self.failure is not None
        result = {**self.metrics, "epoch": self.epoch, self.KEY: self}
        return result | ({"done": True} if is_over else {})

    @classmethod
    def from_ray(cls, result: Mapping[str, Any]) -> TrialResult:
        """The result that Ray passed on."""
        found = result[cls.KEY]
        assert isinstance(found, cls)
        return found


class _Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """What a trial keeps beside its session when it is paused, or copied."""

    candidate: Candidate
    epoch: int
    """The last one that was reported."""
    trained: int
    """The last one that was trained."""


def _rounded(record: StageRecord) -> StageRecord:
    return replace(record, seconds=round(record.seconds, 4))


def _chosen(metrics: Mapping[str, Any]) -> Report:
    """The chosen epoch's report, from a fusion artifact's metrics. A trial that continued another's
    session never reported the epochs before."""
    epoch = metrics["epoch"]
    return next(Report(**report) for report in metrics["reports"] if report["epoch"] == epoch)


class Trial(ray_tune.Trainable):  # type: ignore[misc]
    """One candidate of a sweep; configured by an `Assignment`, it gives `TrialResult`s."""

    def setup(
        self, config: dict[str, Any], sweep: dict[str, Any], sweep_id: str, max_failures: int
    ) -> None:
        self._sweep = SweepConfig.model_validate(sweep)
        self._sweep_id, self._max_failures = sweep_id, max_failures
        self._engine: EngineHandle | None = None
        self._opened: SessionOpened | FusionFound | None = None
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._close()
        assigned, self._wanted = Assignment.from_ray(new_config)
        self._number, self._candidate = assigned.number, assigned.candidate
        self._epoch = assigned.epoch
        self._checkpoint: bytes | None = None
        self._past = deque[Report]()
        self._news: dict[str, StageRecord] = {}
        self._num_failures = 0
        return True

    # --- one epoch ----------------------------------------------------------------------------

    def step(self) -> dict[str, Any]:
        while True:
            try:
                result = self._step()
            except RayActorError as error:
                self._num_failures += 1
                self._opened = self._engine = None
                if self._num_failures > self._max_failures:
                    message = f"fusion: its worker died: {reason_of(error)}"
                    return self._failed(Failure(FailureKind.FAILED, message)).to_ray()
                fetch(self._find_engine().worker_died.remote(self._number))
                continue
            if result.epoch > self._epoch:
                self._epoch, self._num_failures = result.epoch, 0
            return result.to_ray()

    def _step(self) -> TrialResult:
        if self._opened is None and (failure := self._open()) is not None:
            return self._failed(failure)
        match self._opened:
            case FusionFound() as found:
                return self._next_found(found)
            case SessionOpened() as opened if self._past:
                return self._trained(opened, self._past.popleft(), opened.seconds)
            case SessionOpened() as opened:
                match fetch(opened.worker.advance.remote(opened.session)):
                    case Moved():
                        self._opened = None
                        return self._step()
                    case Failure() as failure:
                        return self._failed(failure)
                    case Step() as step:
                        return self._next(opened, step)
        raise AssertionError

    def _open(self) -> Failure | None:
        try:
            config = self._candidate.config(self._sweep.base)
            request = TrialRequest(
                trial=self._number,
                config=config,
                name=self._candidate.name,
                checkpoint=self._checkpoint,
                needs_session=self._sweep.scheduler.shares_sessions,
            )
            opened = fetch(self._find_engine().open.remote(request))
        except InputError as error:
            return Failure(FailureKind.FAILED, str(error))
        except RayTaskError as error:
            if isinstance(error.cause, StorageLostError):
                return Failure(FailureKind.STORAGE, str(error.cause))
            return Failure(FailureKind.FAILED, first_line(error.cause))
        self._checkpoint = None  # the worker has it, and writes later ones to the store
        if isinstance(opened, Failure):
            return opened
        self._news |= {stage: _rounded(record) for stage, record in opened.records.items()}
        self._opened = opened
        self._past = deque(report for report in opened.reports if report.epoch > self._epoch)
        return None

    def _find_engine(self) -> EngineHandle:
        if self._engine is None:
            self._engine = find_engine(self._sweep_id)
        return self._engine

    # --- results ------------------------------------------------------------------------------

    def _result(self, report: Report | None = None, **fields: Any) -> TrialResult:
        news, self._news = self._news, {}
        return TrialResult(
            number=self._number,
            epoch=report.epoch if report else 0,
            metrics=report.metrics if report else {},
            candidate=self._candidate,
            stages=news,
            **fields,
        )

    def _failed(self, failure: Failure) -> TrialResult:
        return self._result(failure=failure)

    def _next(self, opened: SessionOpened, step: Step) -> TrialResult:
        """The epoch that was just trained."""
        report = Report(step.epoch, step.metrics)
        if step.final is None:
            return self._trained(opened, report, step.seconds)
        result = self._trained(opened, report, step.seconds, step.final)
        return replace(result, chosen=_chosen(step.final))

    def _trained(
        self,
        opened: SessionOpened,
        report: Report,
        seconds: float,
        final: Mapping[str, Any] | None = None,
    ) -> TrialResult:
        metrics = {**opened.place, **(final or {}), "seconds": seconds}
        fusion = trained_record(opened.fusion_key, metrics)
        return self._result(report, fusion=_rounded(fusion))

    def _next_found(self, found: FusionFound) -> TrialResult:
        """The next epoch of a fusion that was trained before; the last one again, where the end is
        all that was not reported."""
        report = self._past.popleft() if self._past else found.reports[-1]
        result = self._result(report)
        return result if self._past else replace(result, chosen=_chosen(found.metrics))

    # --- pausing, and continuing another trial's session (population based training) ----------

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        session, trained = self._checkpoint, self._epoch
        while isinstance(self._opened, SessionOpened):
            opened = self._opened
            found = fetch(opened.worker.checkpoint.remote(opened.session))
            if not isinstance(found, Moved):
                session = found
                # Epochs of an earlier driver that are still to be reported are trained already.
                trained = opened.reports[-1].epoch if self._past else trained
                break
            if self._open() is not None:
                break  # it is opened again at the last checkpoint in the store
        saved = _Checkpoint(candidate=self._candidate, epoch=self._epoch, trained=trained)
        Path(checkpoint_dir, "session.safetensors").write_bytes(session or b"")
        Path(checkpoint_dir, "trial.json").write_bytes(msgspec.json.encode(saved))

    def load_checkpoint(self, checkpoint: str) -> None:
        content = Path(checkpoint, "trial.json").read_bytes()
        saved = msgspec.json.decode(content, type=_Checkpoint)
        self._checkpoint = Path(checkpoint, "session.safetensors").read_bytes() or None
        self._epoch = saved.epoch
        self._candidate = saved.candidate.changed(saved.trained + 1, self._wanted)

    def cleanup(self) -> None:
        self._close()

    def _close(self) -> None:
        """Give the session back: this actor ends, or becomes another trial, while the one that it
        was may be paused."""
        if isinstance(self._opened, SessionOpened):
            self._find_engine().close.remote(self._number, self._opened.session)
        self._opened = None
