"""The trial: a small Ray Tune trainable that holds no accelerator and imports no torch.

It asks the engine for its stages, then its worker for fusion's epochs, a few at a time where these
are short, and reports each. A stage's own error ends the trial with a result, never with an
exception, which Tune would retry.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import ray.tune as ray_tune
from ray.exceptions import RayActorError, RayTaskError

from magtkd.errors import StorageLostError, first_line
from magtkd.metrics import Report
from magtkd.pipeline import StageRecord, trained_record
from tune.engine import (
    EngineHandle,
    Failure,
    FailureKind,
    FusionFound,
    Moved,
    SessionOpened,
    Step,
    TrialRequest,
    ends_batch,
    fetch,
    find_engine,
    reason_of,
)
from tune.space import Assignment, Candidate

__all__ = ["Trial", "TrialResult"]


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

    def to_ray(self, metric: str) -> dict[str, Any]:
        """Ray Tune's result. Of the metrics it has only the one that schedulers compare: Tune keeps
        a dozen statistics of each number in a result, for each trial, to its end."""
        result: dict[str, Any] = {"epoch": self.epoch, self.KEY: self}
        if metric in self.metrics:
            result[metric] = self.metrics[metric]
        is_over = self.chosen is not None or self.failure is not None
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


def _with_fusion(
    results: list[TrialResult], opened: SessionOpened, metrics: Mapping[str, Any]
) -> list[TrialResult]:
    """The results, with the fusion stage as it is after the last of them."""
    record = trained_record(opened.fusion_key, {**opened.place, **metrics})
    return [*results[:-1], replace(results[-1], fusion=_rounded(record))]


class Trial(ray_tune.Trainable):  # type: ignore[misc]
    """One candidate of a sweep; configured by an `Assignment`, it gives `TrialResult`s.

    Args of `setup`, beside Ray Tune's configuration:
        sweep_id: the sweep.
        metric: what the scheduler compares.
        stops: epochs after which the scheduler must be asked.
        shares_sessions: whether another trial may continue from this one's session.
        max_failures: how often its worker may die without an epoch in between.
    """

    def setup(
        self,
        config: dict[str, Any],
        sweep_id: str,
        metric: str,
        stops: Sequence[int],
        shares_sessions: bool,
        max_failures: int,
    ) -> None:
        self._sweep_id, self._metric, self._stops = sweep_id, metric, stops
        self._shares_sessions, self._max_failures = shares_sessions, max_failures
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

    # --- epochs -------------------------------------------------------------------------------

    def step(self) -> dict[str, Any]:
        """One epoch, where the scheduler decides after each."""
        (result,) = self._advance()
        return result.to_ray(self._metric)

    def train_buffered(self, *limits: float) -> list[dict[str, Any]]:
        """The epochs up to the scheduler's next decision, or as many as are trained in about half a
        second. The limits of Ray Tune, which knows neither, are larger.

        Not Ray's own, which asks for one epoch after another.
        """
        return [result.to_ray(self._metric) for result in self._advance()]

    def _advance(self) -> list[TrialResult]:
        while True:
            try:
                results = self._step()
            except RayActorError as error:
                self._num_failures += 1
                self._opened = self._engine = None
                if self._num_failures > self._max_failures:
                    message = f"fusion: its worker died: {reason_of(error)}"
                    return [self._failed(Failure(FailureKind.FAILED, message))]
                fetch(self._find_engine().worker_died.remote(self._number))
                continue
            if results[-1].epoch > self._epoch:
                self._epoch, self._num_failures = results[-1].epoch, 0
            return results

    def _step(self) -> list[TrialResult]:
        if self._opened is None and (failure := self._open()) is not None:
            return [self._failed(failure)]
        match self._opened:
            case FusionFound() as found:
                return self._next_found(found)
            case SessionOpened() as opened if self._past:
                results = [self._result(report) for report in self._next_past()]
                return _with_fusion(results, opened, {"seconds": opened.seconds})
            case SessionOpened() as opened:
                match fetch(opened.worker.advance.remote(opened.session, self._stops)):
                    case Moved():
                        self._opened = None
                        return self._step()
                    case Failure() as failure:
                        return [self._failed(failure)]
                    case steps:
                        return self._next(opened, steps)
        raise AssertionError

    def _open(self) -> Failure | None:
        request = TrialRequest(
            trial=self._number,
            candidate=self._candidate,
            checkpoint=self._checkpoint,
            needs_session=self._shares_sessions,
        )
        try:
            opened = fetch(self._find_engine().open.remote(request))
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

    def _next(self, opened: SessionOpened, steps: Sequence[Step]) -> list[TrialResult]:
        """The epochs that were just trained."""
        results = [self._result(Report(step.epoch, step.metrics)) for step in steps]
        last = steps[-1]
        if last.final is not None:
            results[-1] = replace(results[-1], chosen=_chosen(last.final))
        return _with_fusion(results, opened, {**(last.final or {}), "seconds": last.seconds})

    def _next_past(self) -> list[Report]:
        """The next epochs that were trained before."""
        reports = [self._past.popleft()]
        while self._past and not ends_batch(reports[-1].epoch, reports[-1].metrics, self._stops):
            reports.append(self._past.popleft())
        return reports

    def _next_found(self, found: FusionFound) -> list[TrialResult]:
        """The next epochs of a fusion that was trained before; the last one again, where the end is
        all that was not reported."""
        reports = self._next_past() if self._past else found.reports[-1:]
        results = [self._result(report) for report in reports]
        if not self._past:
            results[-1] = replace(results[-1], chosen=_chosen(found.metrics))
        return results

    # --- pausing, and continuing another trial's session (population based training) ----------

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        session, trained = self._checkpoint, self._epoch
        while isinstance(self._opened, SessionOpened):
            opened = self._opened
            try:
                found = fetch(opened.worker.checkpoint.remote(opened.session))
            except RayActorError:  # also where its session has moved, and the worker was ended
                self._num_failures += 1
                if self._num_failures > self._max_failures:
                    raise
                fetch(self._find_engine().worker_died.remote(self._number))
                found = Moved()
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
