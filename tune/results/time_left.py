"""How long a sweep still takes: the work that is left, at the speed of the work that was done.

Work is seconds of training, of all workers together. What a running trial still needs is the stages
that it does not have, each at its mean cost times how often such a stage had to be trained, and the
epochs of fusion that it lacks; a trial to come costs what recent ones did, reuse included.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable

from magtkd.pipeline import Outcome, StageRecord
from tune.ledger import SweepState, TrialState
from tune.results.stage_seconds import TRAINED

__all__ = ["TimeLeft", "work_done", "work_left"]

FUSION = "fusion"


class _Ended:
    """What ended trials took, in sums: each trial is looked at once, however many there are."""

    def __init__(self) -> None:
        self.num_trials = 0
        self.seconds = [0.0]
        """Of the first 0, 1, 2, ... trials."""
        self.of_stage = defaultdict[str, list[float]](lambda: [0.0, 0.0])
        """Seconds, and trials that had the stage."""
        self.num_epochs, self.num_with_epochs = 0, 0
        self.fusion_seconds, self.fusion_epochs = 0.0, 0

    def update(self, state: SweepState) -> None:
        """Add the trials that have ended since."""
        for trial in state.ended[self.num_trials :]:
            self.num_trials += 1
            self.seconds.append(self.seconds[-1] + _seconds(trial.stages.values()))
            for stage, record in trial.stages.items():
                self.of_stage[stage][0] += _seconds([record])
                self.of_stage[stage][1] += 1
            self.num_epochs += len(trial.reports)
            self.num_with_epochs += bool(trial.reports)
            fusion = trial.stages.get(FUSION)
            if fusion is not None and fusion.outcome in TRAINED and trial.reports:
                self.fusion_seconds += fusion.seconds
                self.fusion_epochs += len(trial.reports)

    @property
    def recent(self) -> float:
        """Seconds of one trial, on average over the second half: by then more is there to be
        reused."""
        half = self.num_trials // 2
        return (self.seconds[-1] - self.seconds[half]) / (self.num_trials - half)

    @property
    def length(self) -> float:
        """Epochs of one trial: schedulers and patience end most before their last."""
        return self.num_epochs / self.num_with_epochs if self.num_with_epochs else 0.0

    @property
    def seconds_per_epoch(self) -> float:
        return self.fusion_seconds / self.fusion_epochs if self.fusion_epochs else 0.0


def work_done(state: SweepState, ended: _Ended | None = None) -> float:
    """The seconds of training so far, those of running fusion sessions included.

    Args:
        state: the sweep so far.
        ended: what its ended trials took; by default, that is summed up anew.
    """
    ended = ended or _Ended()
    ended.update(state)
    done = ended.seconds[-1]
    for trial in state.running.values():
        if _has_fusion(trial):
            done += _seconds(trial.stages.values())
        else:
            done += _seconds(one for stage, one in trial.stages.items() if stage != FUSION)
            done += len(trial.reports) * ended.seconds_per_epoch
    return done


def work_left(state: SweepState, num_trials: int, ended: _Ended | None = None) -> float | None:
    """The seconds of training that are left; None while no trial has ended.

    Args:
        state: the sweep so far.
        num_trials: trials that there will be.
        ended: what its ended trials took; by default, that is summed up anew.
    """
    ended = ended or _Ended()
    ended.update(state)
    if not ended.num_trials:
        return None
    left = max(0, num_trials - len(state.trials)) * ended.recent
    return left + sum(_left_of(trial, ended, state) for trial in state.running.values())


def _left_of(trial: TrialState, ended: _Ended, state: SweepState) -> float:
    left = sum(
        seconds / number
        for stage, (seconds, number) in ended.of_stage.items()
        if stage not in (*trial.stages, FUSION)
    )
    if not _has_fusion(trial):
        planned = trial.values.get("fusion.epochs")
        num_epochs = planned if isinstance(planned, int) else state.sweep.fusion.epochs
        expected = min(num_epochs, ended.length)
        left += max(1.0, expected - len(trial.reports)) * ended.seconds_per_epoch
    return left


def _has_fusion(trial: TrialState) -> bool:
    """Whether its fusion is over, and not only interrupted."""
    record = trial.stages.get(FUSION)
    return record is not None and (trial.has_ended or record.outcome != Outcome.STOPPED)


def _seconds(records: Iterable[StageRecord]) -> float:
    return sum(record.seconds for record in records if record.outcome in TRAINED)


class TimeLeft:
    """Counts down to the expected end. Estimated anew when a trial ends; between two ends it may
    only fall, so that it does not grow while nothing ends.

    Args:
        state: the sweep, which is up to date when a trial ends.
        num_trials: trials that there will be; None where that is open, and no end is expected.
        clock: seconds from any start.
    """

    def __init__(
        self, state: SweepState, num_trials: int | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._state, self._num_trials, self._clock = state, num_trials, clock
        self._ended = _Ended()
        self._started, self._done_before = clock(), work_done(state, self._ended)
        self._end: float | None = None

    def on_end(self) -> None:
        """A trial has ended."""
        if self._num_trials is None:
            return
        left = work_left(self._state, self._num_trials, self._ended)
        passed = self._clock() - self._started
        done = work_done(self._state, self._ended) - self._done_before
        if left is None or done <= 0 or passed <= 0:
            self._end = self._by_number(passed, self._num_trials)
        else:
            self._end = self._clock() + left * passed / done

    def _by_number(self, passed: float, num_trials: int) -> float | None:
        """Where nothing was trained, since all is reused: each takes as long as the others."""
        ended = len(self._state.ended)
        if not ended:
            return None
        return self._clock() + passed / ended * (num_trials - ended)

    @property
    def seconds(self) -> float | None:
        """Seconds until the expected end; None while that is not known, 0 once it has passed."""
        return None if self._end is None else max(0.0, self._end - self._clock())
