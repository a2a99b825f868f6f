"""How long a sweep still takes: the work that is left, at the speed of the work that was done.

Work is seconds of training, of all workers together. What a running trial still needs is the stages
that it does not have, each at its mean cost times how often such a stage had to be trained, and the
epochs of fusion that it lacks; a trial to come costs what recent ones did, reuse included.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from statistics import fmean

from magtkd.pipeline import Outcome, StageRecord
from tune.ledger import SweepState, TrialState

__all__ = ["TimeLeft", "work_done", "work_left"]

TRAINED = {Outcome.TRAINED, Outcome.STOPPED, Outcome.RECOVERED}
FUSION = "fusion"


def work_done(state: SweepState) -> float:
    """The seconds of training so far, those of running fusion sessions included."""
    each = _seconds_per_epoch(state)
    done = 0.0
    for trial in state.trials.values():
        if _has_fusion(trial):
            done += _seconds(trial.stages.values())
            continue
        done += _seconds(one for stage, one in trial.stages.items() if stage != FUSION)
        if not trial.has_ended:
            done += len(trial.reports) * each
    return done


def work_left(state: SweepState, num_trials: int) -> float | None:
    """The seconds of training that are left; None while no trial has ended.

    Args:
        state: the sweep so far.
        num_trials: trials that there will be.
    """
    ended = [trial for trial in state.trials.values() if trial.has_ended]
    if not ended:
        return None
    # The second half: by then more is there to be reused.
    recent = ended[len(ended) // 2 :]
    to_come = max(0, num_trials - len(state.trials))
    left = to_come * fmean(_seconds(trial.stages.values()) for trial in recent)
    for trial in state.trials.values():
        if not trial.has_ended:
            left += _left_of(trial, ended, state)
    return left


def _left_of(trial: TrialState, ended: Sequence[TrialState], state: SweepState) -> float:
    stages = dict.fromkeys(stage for other in ended for stage in other.stages)
    left = 0.0
    for stage in stages:
        if stage not in (*trial.stages, FUSION):
            left += fmean(
                _seconds([other.stages[stage]]) for other in ended if stage in other.stages
            )
    if not _has_fusion(trial):
        planned = trial.values.get("fusion.epochs")
        num_epochs = planned if isinstance(planned, int) else state.sweep.fusion.epochs
        lengths = [len(other.reports) for other in ended if other.reports]
        # Schedulers and patience end most trials before their last epoch.
        expected = min(num_epochs, fmean(lengths)) if lengths else 0.0
        left += max(1.0, expected - len(trial.reports)) * _seconds_per_epoch(state)
    return left


def _has_fusion(trial: TrialState) -> bool:
    """Whether its fusion is over, and not only interrupted."""
    record = trial.stages.get(FUSION)
    return record is not None and (trial.has_ended or record.outcome != Outcome.STOPPED)


def _seconds_per_epoch(state: SweepState) -> float:
    known = [
        (trial.stages[FUSION].seconds, len(trial.reports))
        for trial in state.trials.values()
        if _has_fusion(trial) and trial.stages[FUSION].outcome in TRAINED and trial.reports
    ]
    epochs = sum(number for _, number in known)
    return sum(seconds for seconds, _ in known) / epochs if epochs else 0.0


def _seconds(records: Iterable[StageRecord]) -> float:
    return sum(record.seconds for record in records if record.outcome in TRAINED)


class TimeLeft:
    """Counts down to the expected end. Estimated anew when a trial ends; between two ends it may
    only fall, so that it does not grow while nothing ends.

    Args:
        state: the sweep, which is up to date when a trial ends.
        num_trials: trials that there will be.
        clock: seconds from any start.
    """

    def __init__(
        self, state: SweepState, num_trials: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._state, self._num_trials, self._clock = state, num_trials, clock
        self._started, self._done_before = clock(), work_done(state)
        self._end: float | None = None

    def on_end(self) -> None:
        """A trial has ended."""
        left = work_left(self._state, self._num_trials)
        passed = self._clock() - self._started
        done = work_done(self._state) - self._done_before
        if left is None or done <= 0 or passed <= 0:
            self._end = self._by_number(passed)
        else:
            self._end = self._clock() + left * passed / done

    def _by_number(self, passed: float) -> float | None:
        """Where nothing was trained, since all is reused: each takes as long as the others."""
        ended = sum(trial.has_ended for trial in self._state.trials.values())
        if not ended:
            return None
        return self._clock() + passed / ended * (self._num_trials - ended)

    @property
    def seconds(self) -> float | None:
        """Seconds until the expected end; None while that is not known, 0 once it has passed."""
        return None if self._end is None else max(0.0, self._end - self._clock())
