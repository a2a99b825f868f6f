"""Several objectives: what no trial has at once."""

from __future__ import annotations

import numpy as np

from tune.report.charts import Chart, Marks, Panel
from tune.report.palette import ACCENT, MAIN
from tune.report.subject import Subject, axis_of, thinned

__all__ = ["pareto_chart"]

MOST_POINTS = 1000


def pareto_chart(subject: Subject) -> Chart:
    """Each later objective against the first, with the Pareto front."""
    first, *others = (one.metric for one in subject.state.objectives)
    front = subject.front
    numbers = thinned(sorted(subject.ranked), MOST_POINTS, keep=front)
    panels = []
    for metric in others:
        panels.append(
            Panel(
                x=axis_of(first),
                y=axis_of(metric),
                marks=(
                    _points(subject, numbers, (first, metric), "completed", MAIN, 6),
                    _points(subject, front, (first, metric), "Pareto front", ACCENT, 10),
                ),
            )
        )
    caption = (
        f"The {len(front)} trials of the front are those that no other beats in one objective "
        "without losing in another: choose among them."
    )
    if len(numbers) < len(subject.ranked):
        caption += f" Of {len(subject.ranked):,} trials, {len(numbers):,} are drawn."
    return Chart(
        name="pareto-front",
        title="Pareto front",
        caption=caption,
        panels=tuple(panels),
        height=380,
        width=420,
    )


def _points(
    subject: Subject, numbers: list[int], metrics: tuple[str, str], name: str, color: str, size: int
) -> Marks:
    x, y = (subject.scores(numbers, metric) for metric in metrics)
    order = np.argsort(x, kind="stable")
    pairs = zip(np.array(numbers)[order], x[order], y[order], strict=True)
    return Marks(
        kind="points",
        x=x[order],
        y=y[order],
        name=name,
        color=color,
        opacity=0.5 if color == MAIN else 1.0,
        size=size,
        shape="circle" if color == MAIN else "diamond",
        labels=tuple(f"trial {number}: {one:.4g}, {other:.4g}" for number, one, other in pairs),
    )
