"""The objective over the searched values: each name alone, two at once, and all together."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tune.ledger import TrialStatus
from tune.report.charts import Axis, Chart, Floats, Heat, Marks, Panel, joined
from tune.report.knob import Knob
from tune.report.palette import ACCENT, GREY, MAIN
from tune.report.subject import Subject, close_axis, metric_title, thinned

__all__ = ["pair_charts", "parallel_chart", "slice_chart"]

MOST_SLICED, MOST_LINES = 600, 300
MOST_BINS, MOST_PAIRED = 7, 3


def slice_chart(subject: Subject, knobs: Sequence[Knob]) -> Chart:
    """The objective against each name alone; of trials that were stopped, the best so far."""
    numbers, stopped = _drawn(subject, MOST_SLICED), _stopped(subject)
    scores, reached = subject.scores(numbers), subject.reached(stopped)
    y, outside = close_axis(subject.state.objectives[0], np.concatenate([scores, reached]))
    best = [] if subject.chosen is None else [subject.chosen.number]
    panels = []
    for knob in knobs:
        kinds: list[dict[str, Any]] = [
            {"numbers": stopped, "y": reached, "color": GREY, "opacity": 0.35, "size": 4},
            {"numbers": numbers, "y": scores, "color": MAIN, "opacity": 0.5, "size": 5},
            {"numbers": best, "y": subject.scores(best), "color": ACCENT, "size": 12},
        ]
        kinds[1]["scale"] = np.array(numbers, np.float64)
        kinds[2]["shape"] = "open"
        marks = [_slice(subject, knob, **kind) for kind in kinds if kind["numbers"]]
        if any(np.isfinite(one.x).any() for one in marks):
            panels.append(Panel(x=knob.axis, y=y, marks=tuple(marks)))
    caption = (
        "A point is a completed trial, from the first (blue) to the last (red), the ring the best: "
        "where the upper edge of the points rises towards an end of the range, widen it."
    )
    if stopped:
        caption += " The grey ones were stopped, and are at the best that they reached"
        every = subject.state.count()[TrialStatus.STOPPED]
        more = f"; {len(stopped):,} of {every:,} are drawn, evenly" if len(stopped) < every else ""
        caption += f"{more}."
    return Chart(
        name="slices",
        title="Each name alone",
        caption=caption + _thinned(numbers, subject, MOST_SLICED) + outside,
        panels=tuple(panels),
        height=270,
        width=290,
    )


def _slice(subject: Subject, knob: Knob, *, numbers: list[int], y: Floats, **style: Any) -> Marks:
    x = _positions(subject, knob, numbers) + knob.spread(numbers)
    labels = tuple(f"trial {one}: {score:.4g}" for one, score in zip(numbers, y, strict=True))
    return Marks(kind="points", x=x, y=y, labels=labels, **style)


def _stopped(subject: Subject) -> list[int]:
    """The stopped trials that are drawn, in order of number."""
    trials = subject.state.trials.values()
    every = sorted(one.number for one in trials if one.state == TrialStatus.STOPPED)
    return thinned(every, MOST_SLICED // 2)


def pair_charts(subject: Subject, knobs: Sequence[Knob]) -> list[Chart]:
    """The mean of the objective over two names at once, for the pairs of the first few."""
    numbers = subject.ranked
    scores = subject.scores(numbers)
    panels = []
    for one, other in itertools.combinations(knobs[:MOST_PAIRED], 2):
        panel = _pair(subject, one, other, numbers, scores)
        if panel is not None:
            panels.append(panel)
    if not panels:
        return []
    return [
        Chart(
            name="pairs",
            title="Two names at once",
            caption=(
                f"Each cell is the mean of {metric_title(subject.metric)} of the trials there, of "
                "the most important names: an empty cell was not tried, and a ridge along a "
                "diagonal means that the two belong together."
            ),
            panels=tuple(panels),
            height=340,
            width=360,
        )
    ]


def _pair(
    subject: Subject, one: Knob, other: Knob, numbers: list[int], scores: Floats
) -> Panel | None:
    columns, x_names = _binned(one, _positions(subject, one, numbers))
    rows, y_names = _binned(other, _positions(subject, other, numbers))
    known = (columns >= 0) & (rows >= 0)
    if not known.any():
        return None
    shape = (len(y_names), len(x_names))
    total, count = np.zeros(shape), np.zeros(shape)
    np.add.at(total, (rows[known], columns[known]), scores[known])
    np.add.at(count, (rows[known], columns[known]), 1)
    with np.errstate(invalid="ignore"):
        mean = (total / count)[::-1]
    texts = [["" if math.isnan(cell) else f"{cell:.3g}" for cell in row] for row in mean]
    heat = Heat(values=mean, texts=tuple(map(tuple, texts)))
    x = Axis(title=one.name, names=x_names)
    y = Axis(title=other.name, names=y_names[::-1])
    return Panel(x=x, y=y, heat=heat)


def _binned(knob: Knob, positions: Floats) -> tuple[np.ndarray, tuple[str, ...]]:
    """The bin of each position, -1 where there is none, and the name of each bin."""
    known = np.isfinite(positions)
    distinct = np.unique(positions[known])
    if knob.words or len(distinct) <= MOST_BINS:
        if knob.words:
            distinct = np.arange(len(knob.words), dtype=np.float64)
        names = knob.words or tuple(f"{value:.3g}" for value in distinct)
        bins = np.searchsorted(distinct, np.where(known, positions, -np.inf))
        return np.where(known, bins, -1), names
    low, high = knob.ends
    space = np.geomspace if knob.is_log else np.linspace
    edges = space(low, high, MOST_BINS + 1)
    bins = np.clip(np.searchsorted(edges, positions, side="right") - 1, 0, MOST_BINS - 1)
    middles = np.sqrt(edges[1:] * edges[:-1]) if knob.is_log else (edges[1:] + edges[:-1]) / 2
    return np.where(known, bins, -1), tuple(f"{value:.2g}" for value in middles)


def parallel_chart(subject: Subject, knobs: Sequence[Knob]) -> Chart:
    """Parallel coordinates: a row for each name, a line for each trial from the objective down."""
    numbers = _drawn(subject, MOST_LINES)
    ranks = {number: rank for rank, number in enumerate(subject.ranked)}
    metric, scores = subject.metric, subject.scores(numbers)
    low, high = (np.min(scores), np.max(scores)) if len(scores) else (0.0, 1.0)
    rows = [(scores - low) / (high - low) if high > low else np.full(len(scores), 0.5)]
    for knob in knobs:
        positions = _positions(subject, knob, numbers)
        shares = np.array([knob.share(one) for one in positions])
        rows.append(shares + 0.15 * knob.spread(numbers))
    table = np.array(rows).T
    groups = (
        ("lower half", 0.5, 1.1, GREY, 0.2),
        ("upper half", 0.1, 0.5, MAIN, 0.35),
        ("best tenth", -1.0, 0.1, ACCENT, 0.8),
    )
    total = max(1, len(ranks))
    marks = []
    height = np.arange(len(rows), dtype=np.float64)
    for name, above, to, color, opacity in groups:
        lines = [
            (line, height)
            for line, number in zip(table, numbers, strict=True)
            if above <= ranks[number] / total < to
        ]
        if lines:
            x, y = joined(lines)
            marks.append(
                Marks(kind="line", x=x, y=y, name=name, color=color, opacity=opacity, size=1.3)
            )
    names = (f"{metric_title(metric)}\n{low:.4g} to {high:.4g}", *map(_row_name, knobs))
    panel = Panel(
        x=Axis(range=(-0.04, 1.04), ticks=((0.0, "low"), (1.0, "high"))),
        y=Axis(names=names),
        marks=tuple(marks),
    )
    return Chart(
        name="parallel-coordinates",
        title="Parallel coordinates",
        caption=(
            "Each line is a completed trial, at its value in each row: where the lines of the best "
            "tenth meet in a row, that value matters." + _thinned(numbers, subject, MOST_LINES)
        ),
        panels=(panel,),
        width=600,
        height=110 + 44 * len(rows),
    )


def _row_name(knob: Knob) -> str:
    if knob.words:
        words = ", ".join(knob.words)
        return f"{knob.name}\n{words if len(words) <= 30 else f'{len(knob.words)} choices'}"
    low, high = knob.ends
    return f"{knob.name}\n{low:.4g} to {high:.4g}{' (log)' if knob.is_log else ''}"


def _positions(subject: Subject, knob: Knob, numbers: Sequence[int]) -> Floats:
    """Where some trials' values are on a name's axis; NaN where they have none, or a value that
    its scale does not have."""
    found = []
    for number in numbers:
        values = subject.state.trials[number].values
        at = knob.position(values[knob.name]) if knob.name in values else math.nan
        found.append(math.nan if knob.is_log and at <= 0 else at)
    return np.array(found, np.float64)


def _drawn(subject: Subject, most: int) -> list[int]:
    """The completed trials that are drawn, in order of number."""
    return thinned(sorted(subject.ranked), most, keep=subject.ranked[: most // 5])


def _thinned(numbers: list[int], subject: Subject, most: int) -> str:
    whole = len(subject.ranked)
    if len(numbers) == whole:
        return ""
    return f" Of {whole:,} trials, {len(numbers):,} are drawn: the best {most // 5}, others evenly."
