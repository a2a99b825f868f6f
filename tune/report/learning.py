"""Learning curves: of all trials of a sweep, and of one trial."""

from __future__ import annotations

from typing import Any

import numpy as np

from tune.ledger import TrialState, TrialStatus
from tune.report.charts import Axis, Chart, Marks, Panel, joined
from tune.report.palette import ACCENT, GREY, MAIN, STATES
from tune.report.subject import Subject, as_shown, axis_of, close_axis, thinned

__all__ = ["early_chart", "learning_chart", "trial_chart"]

MOST_CURVES = 250
BEST_KEPT = 50
EPOCH = Axis(title="epoch of fusion")
ORDER = (
    TrialStatus.STOPPED,
    TrialStatus.COMPLETED,
    TrialStatus.DIVERGED,
    TrialStatus.FAILED,
    TrialStatus.RUNNING,
)
FEW = 25
FEWEST = 8
PALE = {TrialStatus.STOPPED: 0.3, TrialStatus.COMPLETED: 0.35}
CLEAR = {TrialStatus.STOPPED: 0.5}  # where few lines are drawn


def learning_chart(subject: Subject) -> Chart | None:
    """The ranking metric of all trials by epoch, one colour a state, the stopped ones pale;
    None where no epoch was reported."""
    trials, metric = subject.state.trials, subject.metric
    reported = sorted(number for number, trial in trials.items() if trial.reports)
    drawn = thinned(reported, MOST_CURVES, keep=subject.ranked[:BEST_KEPT])
    marks = []
    for state in ORDER:
        of_state = [trials[one] for one in drawn if trials[one].state == state]
        if not of_state:
            continue
        x, y = joined([_curve(trial, metric) for trial in of_state])
        ended = subject.state.closed is not None
        shown = "unfinished" if state == TrialStatus.RUNNING and ended else str(state)
        marks.append(
            Marks(
                kind="line",
                x=x,
                y=y,
                name=shown,
                color=STATES[state],
                opacity=(CLEAR if len(drawn) <= FEW else PALE).get(state, 0.8),
                size=1.2,
            )
        )
    if subject.chosen is not None:
        x, y = joined([_curve(subject.chosen, metric)])
        name = f"trial {subject.chosen.number}, the chosen one"
        marks.append(Marks(kind="line", x=x, y=y, name=name, color=ACCENT, size=3))
    caption = (
        "Each line is a trial: those that the scheduler stopped are pale, and should lie low where "
        "it was right."
        if any(trial.state == TrialStatus.STOPPED for trial in trials.values())
        else "Each line is a trial: where they still rise at the end, more epochs may help."
    )
    if len(drawn) < len(reported):
        caption += (
            f" Of {len(reported):,} curves, {len(drawn):,} are drawn: the best {BEST_KEPT}, and "
            "others evenly."
        )
    drawn_values = np.concatenate([np.empty(0), *(one.y for one in marks)])
    y_axis, outside = close_axis(subject.state.objectives[0], drawn_values)
    if not np.isfinite(drawn_values).any():
        return None
    panel = Panel(x=EPOCH, y=y_axis, marks=tuple(marks))
    return Chart(
        name="learning-curves",
        title="Learning curves",
        caption=caption + outside,
        panels=(panel,),
        width=600,
        height=400,
    )


def early_chart(subject: Subject) -> Chart | None:
    """How well the score at each epoch predicts the order of the completed trials in the end, as
    Spearman's rank correlation; None where there are too few to compare."""
    from scipy.stats import spearmanr

    trials = [subject.state.trials[number] for number in subject.ranked]
    final = subject.scores(subject.ranked)
    curves = [dict(zip(*_curve(trial, subject.metric), strict=True)) for trial in trials]
    epochs = sorted({epoch for curve in curves for epoch in curve})
    found = []
    for epoch in epochs:
        early = np.array([curve.get(epoch, np.nan) for curve in curves])
        known = np.isfinite(early)
        differs = known.sum() >= FEWEST and np.ptp(early[known]) and np.ptp(final[known])
        if differs:
            found.append((epoch, float(spearmanr(early[known], final[known]).statistic)))
    if len(found) < 2:
        return None
    x, y = np.array(found).T
    marks = Marks(kind="line", x=x, y=y, color=MAIN)
    panel = Panel(x=EPOCH, y=Axis(title="rank correlation with the end"), marks=(marks,))
    return Chart(
        name="early-scores",
        title="How early the order is known",
        caption=(
            "Each point says how well the scores at an epoch order the completed trials as in the "
            "end (1 is the same order): a scheduler may stop trials from where the line is high "
            "(scheduler.grace_period)."
        ),
        panels=(panel,),
        width=420,
        height=300,
    )


def _curve(trial: TrialState, metric: str) -> tuple[list[float], list[float]]:
    reports = sorted(trial.reports, key=lambda one: one.epoch)
    epochs = [float(one.epoch) for one in reports]
    return epochs, [as_shown(metric, one.metrics.get(metric)) for one in reports]


def trial_chart(trial: TrialState, metric: str) -> Chart:
    """The learning curve of one trial: its losses, and the metric that chose the epoch."""
    losses = [
        _line(trial, "train/loss", "train", GREY),
        _line(trial, "dev/loss", "dev", MAIN),
    ]
    score = [_line(trial, metric, "", MAIN)]
    epoch, values = _curve(trial, metric)
    if trial.epoch in epoch:
        place = epoch.index(trial.epoch)
        score.append(
            Marks(
                kind="points",
                x=np.array([epoch[place]]),
                y=np.array([values[place]]),
                name=f"epoch {trial.epoch}, kept",
                color=ACCENT,
                size=11,
                shape="open",
            )
        )
    return Chart(
        name="chosen-learning-curve",
        title=f"Learning curve of trial {trial.number}",
        caption=(
            "Where the loss on dev rises while that on train falls, the model learns train by "
            "heart; the kept epoch should lie before that."
        ),
        panels=(
            Panel(x=EPOCH, y=Axis(title="loss"), marks=tuple(losses)),
            Panel(x=EPOCH, y=axis_of(metric), marks=tuple(score)),
        ),
    )


def _line(trial: TrialState, metric: str, name: str, color: str) -> Marks:
    curve: Any = joined([_curve(trial, metric)])
    return Marks(kind="line", x=curve[0], y=curve[1], name=name, color=color)
