"""How a sweep came to its best trial: against trials, wall time and compute."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from magtkd.pipeline import Outcome
from tune.ledger import TrialState
from tune.report.charts import Axis, Chart, Floats, Marks, Panel
from tune.report.palette import ACCENT, GREY, MAIN
from tune.report.subject import Subject, close_axis, thinned
from tune.results import TRAINED

__all__ = ["Progress", "best_line", "in_unit", "progress_chart", "progress_of"]

MOST_POINTS = 1000
"""Trials that are drawn as points at most."""
SMALL, LARGE = 300.0, 3 * 3600.0
"""Seconds up to which times are in seconds, and from which they are in hours."""


@dataclass(frozen=True)
class Progress:
    """A sweep's trials in the order in which they ended; each array has an entry for each."""

    numbers: list[int]
    wall: Floats
    """Seconds since the sweep was opened, without those in which no driver ran."""
    spent: Floats
    """Stage-seconds so far: what training took, of all stages on all workers together."""
    saved: Floats
    """Stage-seconds so far that reused artifacts had taken to train."""
    scores: Floats
    """The objective as shown; NaN of those that did not complete."""
    best: Floats
    """The best so far; NaN before the first."""

    @property
    def is_gain(self) -> npt.NDArray[np.bool_]:
        """Where the best so far is better than before."""
        before: Floats = np.append(np.nan, self.best)[:-1]
        return np.isfinite(self.best) & np.not_equal(before, self.best)


def progress_of(subject: Subject) -> Progress:
    """The progress of a sweep."""
    ended, state = subject.state.ended, subject.state
    numbers = [trial.number for trial in ended]
    scores = subject.scores(numbers)
    known = {
        record.key: record.seconds
        for trial in ended
        for record in trial.stages.values()
        if record.outcome in TRAINED
    }
    follow = np.fmax if state.objectives[0].sign > 0 else np.fmin
    return Progress(
        numbers=numbers,
        wall=np.array([subject.running(trial.ended_time or 0) for trial in ended], np.float64),
        spent=np.cumsum([_spent(trial) for trial in ended]),
        saved=np.cumsum([_saved(trial, known) for trial in ended]),
        scores=scores,
        best=follow.accumulate(scores) if len(scores) else scores,
    )


def _spent(trial: TrialState) -> float:
    return sum(one.seconds for one in trial.stages.values() if one.outcome in TRAINED)


def _saved(trial: TrialState, known: dict[str, float]) -> float:
    reused = (one for one in trial.stages.values() if one.outcome == Outcome.REUSED)
    return sum(known.get(one.key, 0.0) if one.saved is None else one.saved for one in reused)


def in_unit(longest: float) -> tuple[float, str]:
    """The seconds of the unit in which a time of such a length is read, and its name."""
    if longest <= SMALL:
        return 1.0, "s"
    return (60.0, "min") if longest < LARGE else (3600.0, "h")


def progress_chart(subject: Subject) -> Chart:
    """Best so far, three times: against trials, wall time, and compute with and without reuse."""
    found = progress_of(subject)
    drawn = _drawn(found)
    divisor, unit = in_unit(max(found.wall, default=0.0))
    compute, of = in_unit(max(found.spent + found.saved, default=0.0))
    order = np.arange(1, len(found.numbers) + 1, dtype=np.float64)
    x_axes = {
        "trials that ended": order,
        f"wall time [{unit}]": found.wall / divisor,
        f"compute [stage-{of}]": found.spent / compute,
    }
    y, outside = close_axis(subject.state.objectives[0], found.scores)
    panels = []
    for title, x in x_axes.items():
        marks = [_points(found, drawn, x), best_line(found.best, x, "best so far", ACCENT)]
        if title.startswith("compute") and found.saved.any():
            alone = (found.spent + found.saved) / compute
            without = best_line(found.best, alone, "the same without reuse", GREY, dashed=True)
            marks.append(without)
        panels.append(Panel(x=Axis(title=title), y=y, marks=tuple(marks)))
    return Chart(
        name="best-so-far",
        title="Best so far",
        caption=_caption(found, compute, of) + _left_out(drawn, found) + outside,
        panels=tuple(panels),
    )


def _caption(found: Progress, divisor: float, unit: str) -> str:
    caption = "Each point is a completed trial, the line the best so far"
    if not len(found.spent):
        return f"{caption}; none has ended yet."
    spent, saved = found.spent[-1] / divisor, found.saved[-1] / divisor
    if not saved:
        return f"{caption}: where it is flat, more trials brought nothing."
    return (
        f"{caption}; the dashed line is what the same trials would have cost without reuse: "
        f"{spent + saved:,.3g} stage-{unit} instead of {spent:,.3g}, "
        f"{(spent + saved) / max(spent, 1e-9):.3g} times as much."
    )


def _left_out(drawn: Sequence[int], found: Progress) -> str:
    completed = int(np.isfinite(found.scores).sum())
    if len(drawn) == completed:
        return ""
    return f" Of {completed:,} points, {len(drawn):,} are drawn: the gains, and others evenly."


def _drawn(found: Progress) -> list[int]:
    """The places of the trials that are drawn as points."""
    whole = np.flatnonzero(np.isfinite(found.scores)).tolist()
    return thinned(whole, MOST_POINTS, keep=np.flatnonzero(found.is_gain).tolist())


def _points(found: Progress, drawn: list[int], x: Floats) -> Marks:
    labels = [f"trial {found.numbers[one]}: {found.scores[one]:.4g}" for one in drawn]
    return Marks(
        kind="points",
        x=x[drawn],
        y=found.scores[drawn],
        color=MAIN,
        opacity=0.45,
        size=5,
        labels=tuple(labels),
    )


def best_line(best: Floats, x: Floats, name: str, color: str, *, dashed: bool = False) -> Marks:
    """The line of the best so far, of which only the gains and the end are kept."""
    kept = np.isfinite(best) & (np.append(np.nan, best)[:-1] != best)
    kept[-1:] = np.isfinite(best[-1:])
    return Marks(
        kind="steps", x=x[kept], y=best[kept], name=name, color=color, dashed=dashed, size=2
    )
