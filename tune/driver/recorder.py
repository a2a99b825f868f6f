"""The recorder: Ray Tune's callbacks become events of the ledger, and nothing else.

The state, the study and the display learn from the same events, in the same order, as a reader of
the ledger would.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import ray.tune as ray_tune

from magtkd.errors import MagtkdError, OwnerLostError, ResumableError, StorageLostError
from magtkd.metrics import Report, Scores
from magtkd.pipeline import Outcome, StageRecord
from tune.config import SweepConfig
from tune.engine import FailureKind
from tune.ledger import (
    EpochReported,
    Event,
    Ledger,
    StagesRecorded,
    SweepClosed,
    SweepEnd,
    SweepState,
    TrialChanged,
    TrialEnded,
    TrialStatus,
)
from tune.space import Assignment
from tune.trial import TrialResult

__all__ = ["Recorder", "chosen_report"]

DEV = "dev/"


def chosen_report(
    reports: Sequence[Report | EpochReported], select: str
) -> Report | EpochReported | None:
    """The report of the epoch that dev chooses so far, as the trainer would: the first best."""
    finite = [report for report in reports if report.metrics.get(DEV + select) is not None]
    if not finite:
        return None
    sign = -1 if select == "loss" else 1
    return max(finite, key=lambda report: sign * (report.metrics[DEV + select] or 0.0))


def _differs(known: StageRecord, record: StageRecord) -> bool:
    """Whether a record is news: one of a stage that was interrupted is not the last."""
    return known.key != record.key or known.outcome == Outcome.STOPPED


class Recorder(ray_tune.Callback):  # type: ignore[misc]
    """Ray Tune's callback: the one writer of the ledger while trials run.

    Args:
        sweep: the sweep.
        ledger: where events go first.
        state: the state after the ledger's events so far.
        listeners: called with each event once it is written.
        on_end: called with the number of a trial that ended.
    """

    def __init__(
        self,
        *,
        sweep: SweepConfig,
        ledger: Ledger,
        state: SweepState,
        listeners: Sequence[Callable[[Event], Any]],
        on_end: Callable[[int], Any],
    ) -> None:
        self._sweep, self._ledger, self.state = sweep, ledger, state
        self._listeners, self._on_end = list(listeners), on_end
        self._fusion: dict[int, StageRecord] = {}
        self._chosen: dict[int, Report] = {}
        self._trained = {
            (stage, record.key)
            for trial in state.trials.values()
            for stage, record in trial.stages.items()
            if record.outcome == Outcome.TRAINED
        }
        self.error: MagtkdError | None = None
        """Why nothing is recorded any more, and the sweep must stop."""

    def listen(self, listener: Callable[[Event], Any]) -> None:
        """Call this with each event too, after the other listeners; it may record events itself."""
        self._listeners.append(listener)

    def record(self, event: Event) -> None:
        """Write an event, then pass it to the state and the listeners.

        No one learns of a trial's end before it is durable. Once the storage cannot be written,
        nothing is: the ledger must not lack an event in its middle.
        """
        if self.error is not None:
            return
        try:
            event = self._ledger.append(event)
            if isinstance(event, TrialEnded):
                self._ledger.flush()
        except ResumableError as error:
            self.error = error
            return
        self.state.apply(event)
        for listen in self._listeners:
            listen(event)

    def check(self) -> None:
        """Find out whether the ledger is still there, and still this driver's."""
        if self.error is None:
            try:
                self._ledger.check()
            except ResumableError as error:
                self.error = error

    def hurry(self, seconds: float) -> None:
        """From now on, wait for an object store no longer than that."""
        self._ledger.hurry(seconds)

    @property
    def seconds_running(self) -> float:
        """Seconds of training of the fusion stages that are not recorded yet."""
        return sum(record.seconds for record in self._fusion.values())

    def close(self, reason: SweepEnd, why: str | None = None) -> None:
        """Record the end of this driver's work, also where an artifact could not be written."""
        if isinstance(self.error, OwnerLostError):
            return  # the ledger is another's, and this copy must not differ from it
        # What interrupted sessions cost so far. Once they have continued, a record of all of it
        # takes this one's place.
        for number in list(self._fusion):
            if not self.state.trials[number].has_ended:
                self._record_fusion(number, TrialStatus.STOPPED)
        with contextlib.suppress(ResumableError):
            self.state.apply(self._ledger.append(SweepClosed(reason=reason, why=why)))

    def end_now(self, error: ResumableError) -> None:
        """Nothing can be done any more, and another thread ends the process: close the ledger."""
        if self.error is None:
            self.error = error
            time.sleep(0.1)  # an event that is being written
        self.hurry(5.0)  # Ray soon ends the process by itself
        with contextlib.suppress(ResumableError, OSError):
            self.close(SweepEnd.INTERRUPTED)
            self._ledger.close()

    # --- Ray Tune's hooks ---------------------------------------------------------------------

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        reported = TrialResult.from_ray(result)
        failure, number = reported.failure, reported.number
        if failure is not None and failure.kind == FailureKind.STORAGE:
            self.error = self.error or StorageLostError(failure.message)
        if self.error is not None:
            return
        self._record_stages(number, reported.stages)
        if reported.fusion is not None:
            self._fusion[number] = reported.fusion
        self._record_change(reported)
        # A trial whose process died re-reports past epochs.
        if reported.metrics and reported.epoch not in self.state.trials[number].epochs_seen:
            metrics: dict[str, float | None] = {**reported.metrics}
            self.record(EpochReported(trial=number, epoch=reported.epoch, metrics=metrics))
        if reported.chosen is not None:
            self._chosen[number] = reported.chosen

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if self.error is not None:  # the storage failed, and no trial
            return
        number = trial.config[Assignment.NUMBER]
        last = (trial.last_result or {}).get(TrialResult.KEY)
        if last is not None and last.failure is not None:
            self.end(number, TrialStatus(last.failure.kind), last.failure.message)
        elif last is not None and last.chosen is not None:
            self.end(number, TrialStatus.COMPLETED)
        else:
            self.end(number, TrialStatus.STOPPED)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        lines = str(trial.get_error() or "").strip().splitlines()
        message = lines[-1] if lines else "the trial's process died"
        self.end(trial.config[Assignment.NUMBER], TrialStatus.FAILED, message)

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its callbacks into a folder that nothing is read from; an open ledger cannot
        # be pickled.
        return {}

    # --- events -------------------------------------------------------------------------------

    def end(self, number: int, state: TrialStatus, message: str | None = None) -> None:
        """Record the end of a trial, once."""
        trial = self.state.trials[number]
        if trial.has_ended or self.error is not None:
            return
        self._record_fusion(number, state)
        chosen: Report | EpochReported | None = self._chosen.pop(number, None)
        if chosen is None and state == TrialStatus.STOPPED:
            select = trial.candidate.config(self._sweep.base).fusion.select
            chosen = chosen_report(trial.reports, select)
        ended = TrialEnded(trial=number, state=state, message=message or None)
        if chosen is not None:
            ended = msgspec.structs.replace(
                ended,
                dev=Scores.of_dev(chosen.metrics),
                epoch=chosen.epoch,
                objectives=[chosen.metrics.get(one.metric) for one in self._sweep.objective],
            )
        self.record(ended)
        if self.error is None:
            self._on_end(number)

    def _record_fusion(self, number: int, state: TrialStatus) -> None:
        """Fusion's record, once, at the end. A trial that was stopped has no artifact, but what it
        cost counts."""
        fusion = self._fusion.pop(number, None)
        if fusion is not None:
            completed = state == TrialStatus.COMPLETED
            outcome = Outcome.TRAINED if completed else Outcome.STOPPED
            self._record_trained(number, {"fusion": replace(fusion, outcome=outcome)})

    def _record_stages(self, number: int, stages: Mapping[str, StageRecord]) -> None:
        """What is new: a trial that was paused finds stages that it reported before."""
        known = self.state.trials[number].stages
        news = {
            stage: self._counted(stage, record)
            for stage, record in stages.items()
            if stage not in known or _differs(known[stage], record)
        }
        if news:
            self._record_trained(number, news)
        if "fusion" in news:  # its artifact was there after all, though its worker had died
            self._fusion.pop(number, None)

    def _record_trained(self, number: int, stages: dict[str, StageRecord]) -> None:
        self.record(StagesRecorded(trial=number, stages=stages))
        self._trained |= {
            (stage, record.key)
            for stage, record in stages.items()
            if record.outcome == Outcome.TRAINED
        }

    def _counted(self, stage: str, record: StageRecord) -> StageRecord:
        """A stage that this sweep trained before something died counts as trained once."""
        if record.outcome != Outcome.RECOVERED:
            return record
        if (stage, record.key) in self._trained:
            return replace(record, outcome=Outcome.REUSED, seconds=0.0, saved=record.seconds)
        return replace(record, outcome=Outcome.TRAINED)

    def _record_change(self, reported: TrialResult) -> None:
        """Population based training continued another trial's session, with other values."""
        candidate = reported.candidate
        if candidate == self.state.trials[reported.number].candidate:
            return
        self.record(
            TrialChanged(
                trial=reported.number,
                epoch=max([reported.epoch, *candidate.changes]),
                values=candidate.current,
                base=candidate.values,
                changes=candidate.changes,
                seed=candidate.seed,
            )
        )
