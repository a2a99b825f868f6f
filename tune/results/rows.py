"""The trials of a sweep as rows, and the best of them.

Test metrics are in a row only where the ledger has revealed them; nothing here ranks by them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from magtkd.errors import NoneCompletedError
from magtkd.metrics import Scores
from tune.ledger import SweepEnd, SweepState, TrialState, TrialStatus
from tune.space import Objective, Scalar, Values

__all__ = ["TrialRow", "best", "trial_rows"]


@dataclass(frozen=True, kw_only=True)
class TrialRow:
    """One trial, as people and files get it."""

    sweep: str
    trial: int
    state: TrialStatus
    values: Values
    """Those that hold at its end."""
    base: Values | None
    """Where population based training changed values, those that the trial's session began with."""
    changes: dict[int, dict[str, Scalar]]
    """What it changed: by epoch, names of fusion."""
    epoch: int | None
    """The epoch that dev chose."""
    objectives: dict[str, float | None]
    """The sweep's objectives in that epoch, by metric; the first one ranks."""
    dev: Scores | None
    """None where the trial has none."""
    test: Scores | None
    """None while it is sealed."""
    stages: dict[str, str]
    """Each stage's key."""

    @classmethod
    def of(cls, state: SweepState, trial: TrialState) -> TrialRow:
        """The row of a trial."""
        candidate = trial.candidate
        metrics = [one.metric for one in state.objectives]
        return cls(
            sweep=state.name,
            trial=trial.number,
            state=trial.state,
            values=candidate.current,
            base=candidate.values if candidate.changes else None,
            changes=candidate.changes,
            epoch=trial.epoch,
            objectives=dict(zip(metrics, trial.objectives or [None] * len(metrics), strict=True)),
            dev=trial.dev,
            test=trial.test,
            stages={stage: record.key for stage, record in trial.stages.items()},
        )

    def to_json(self) -> dict[str, Any]:
        """The row as a JSON object."""
        return asdict(self)


def trial_rows(state: SweepState) -> list[TrialRow]:
    """One row per trial, in order of number."""
    return [TrialRow.of(state, trial) for _, trial in sorted(state.trials.items())]


def best(state: SweepState, top: int | None = None) -> list[TrialRow]:
    """The completed trials that are best on dev by the sweep's objectives.

    With one objective, the first `top` (1 where not given), the lower number first among equals.
    With several, the Pareto front in order of number, or the first `top` of it.

    Raises:
        NoneCompletedError: no trial has completed.
    """
    objectives = state.objectives
    scores = {
        trial.number: score
        for trial in state.trials.values()
        if trial.state == TrialStatus.COMPLETED and (score := _score(trial, objectives)) is not None
    }
    if not scores:
        raise NoneCompletedError(_none_completed(state))
    if len(objectives) == 1:
        ranked = sorted(scores, key=lambda number: (-scores[number][0], number))[: top or 1]
    else:
        ranked = sorted(_pareto_front(scores))[:top]
    return [TrialRow.of(state, state.trials[number]) for number in ranked]


def _score(trial: TrialState, objectives: Sequence[Objective]) -> tuple[float, ...] | None:
    """The objectives with signs such that more is better; None where one is not a number."""
    if trial.objectives is None or None in trial.objectives:
        return None
    pairs = zip(trial.objectives, objectives, strict=True)
    return tuple(float(value or 0) * one.sign for value, one in pairs)


def _pareto_front(scores: Mapping[int, tuple[float, ...]]) -> list[int]:
    """The trials that no other one beats in one objective without losing in another."""
    front: list[int] = []
    # In falling order nothing that comes later can beat what is on the front already.
    for number in sorted(scores, key=lambda number: scores[number], reverse=True):
        score = scores[number]
        beaten = any(
            scores[other] != score
            and all(a >= b for a, b in zip(scores[other], score, strict=True))
            for other in front
        )
        if not beaten:
            front.append(number)
    return front


def _none_completed(state: SweepState) -> str:
    is_over = state.closed is not None
    counts = ", ".join(
        f"{number} {'unfinished' if is_over and name == TrialStatus.RUNNING else name}"
        for name, number in sorted(state.count().items())
    )
    message = f"sweep {state.name!r}: no trial has completed: {counts or 'none was started'}"
    if state.closed == SweepEnd.INTERRUPTED:
        return f"{message}; resume it with --resume {state.name}"
    return f"{message}; {'see the messages of `trials`' if state.closed else 'wait for the first'}"
