"""The best again on fresh seeds, and what choosing on few seeds, or on test, would have claimed.

Scores here are in points, as they are shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tune.report.blocks import Block, Figure, Notes, Section, Table
from tune.report.charts import Axis, Chart, Marks, Panel, joined
from tune.report.palette import ACCENT, GREY, MAIN

__all__ = ["Confirmation", "Confirmed", "confirmation_section"]


@dataclass(frozen=True, kw_only=True)
class Confirmed:
    """One configuration, trained with fresh seeds."""

    trial: int
    """The trial of the sweep that had it."""
    scores: Sequence[float]
    """On dev, one a seed."""
    low: float
    high: float
    """The ends of the confidence interval of their mean."""
    in_sweep: float
    """Its dev score in the sweep, by which it was found."""
    is_tied: bool = False
    """Whether it could not be told from the chosen one."""

    @property
    def mean(self) -> float:
        """Over seeds."""
        return float(np.mean(self.scores))


@dataclass(frozen=True, kw_only=True)
class Confirmation:
    """What `confirm` found, the chosen configuration first, then by mean."""

    metric: str
    """With its unit, as on an axis."""
    confidence: float
    """Of the intervals, such as 0.95."""
    candidates: Sequence[Confirmed]
    test: float | None = None
    """The chosen configuration's mean over seeds on test; None while that is sealed."""
    test_by_epoch: float | None = None
    """What choosing its epoch on test would have claimed."""
    test_by_configuration: float | None = None
    """What choosing the configuration, too, on test would have claimed."""


def confirmation_section(found: Confirmation) -> Section:
    """Means and intervals, who could not be told apart, and the audit."""
    tied = [str(one.trial) for one in found.candidates[1:] if one.is_tied]
    chosen = found.candidates[0]
    line = f"Trial {chosen.trial} is the choice"
    if tied:
        line += f"; it cannot be told from trial{'s' * (len(tied) > 1)} {', '.join(tied)}"
    blocks: list[Block] = [Notes([f"{line}."]), Figure(_chart(found)), _audit(found)]
    return Section("Confirmation on fresh seeds", blocks)


def _chart(found: Confirmation) -> Chart:
    rows = np.arange(len(found.candidates), dtype=np.float64)
    of_seeds = [
        (score, row)
        for row, one in zip(rows, found.candidates, strict=True)
        for score in one.scores
    ]
    x, y = joined(
        [([one.low, one.high], [row, row]) for row, one in zip(rows, found.candidates, strict=True)]
    )
    seeds = np.array(of_seeds)
    means = np.array([one.mean for one in found.candidates])
    before = np.array([one.in_sweep for one in found.candidates])
    marks = (
        Marks(kind="points", x=seeds[:, 0], y=seeds[:, 1], name="a seed", color=GREY, size=5),
        Marks(kind="line", x=x, y=y, name="interval", color=MAIN, size=3),
        Marks(kind="points", x=means, y=rows, name="mean", color=MAIN, size=10),
        Marks(
            kind="points",
            x=before,
            y=rows,
            name="in the sweep",
            color=ACCENT,
            shape="open",
            size=10,
        ),
    )
    names = tuple(f"trial {one.trial}" for one in found.candidates)
    return Chart(
        name="confirmation",
        title="Means over fresh seeds",
        caption=(
            f"Each interval has the mean over seeds with {100 * found.confidence:.0f} % "
            "confidence: the further a ring lies right of its interval, the more its score in "
            "the sweep was luck."
        ),
        panels=(Panel(x=Axis(title=found.metric), y=Axis(names=names), marks=marks),),
        width=600,
        height=130 + 34 * len(names),
    )


def _audit(found: Confirmation) -> Table:
    chosen = found.candidates[0]
    optimism = chosen.in_sweep - chosen.mean
    rows = [
        ("dev in the sweep, by which it was found", f"{chosen.in_sweep:.2f}", f"{optimism:+.2f}"),
        ("dev, mean on fresh seeds", f"{chosen.mean:.2f}", ""),
    ]
    if found.test is not None:
        rows.append(("test, mean on the same seeds", f"{found.test:.2f}", ""))
        claims = {
            "test, had the epoch been chosen there": found.test_by_epoch,
            "test, had the configuration been chosen there, too": found.test_by_configuration,
        }
        rows += [
            (words, f"{claim:.2f}", f"{claim - found.test:+.2f}")
            for words, claim in claims.items()
            if claim is not None
        ]
    return Table(
        ("audit", found.metric, "optimism"),
        rows,
        "Optimism is by how much a figure flatters the choice, against the mean of the same split.",
    )
