"""What a report is about: one sweep, as its ledger has it, read once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from magtkd.errors import NoneCompletedError
from magtkd.store import Store
from tune.ledger import SweepLayout, SweepState, TrialState, TrialStatus
from tune.report.charts import Axis, Floats
from tune.results import (
    Confirmation,
    Status,
    TrialRow,
    best,
    find_confirmation,
    metric_header,
    read_status,
    trial_rows,
)
from tune.space import Objective

__all__ = ["MOST_SHOWN", "Subject", "as_shown", "axis_of", "close_axis", "metric_title", "thinned"]

MOST_SHOWN = 1e30
"""The largest number that is drawn: squares of larger ones are too large for what draws them."""


def as_shown(metric: str, value: float | None) -> float:
    """A metric's value as the figures have it: a loss as it is, anything else in points; NaN where
    there is none that could be drawn."""
    if value is None or not abs(value) < MOST_SHOWN:
        return float("nan")
    return value if metric.endswith("/loss") else 100 * value


def metric_title(metric: str) -> str:
    """A metric with its unit, as the title of an axis."""
    return metric_header(metric) + ("" if metric.endswith("/loss") else " [points]")


def axis_of(metric: str) -> Axis:
    """The axis of a metric."""
    return Axis(title=metric_title(metric))


def close_axis(objective: Objective, values: Floats) -> tuple[Axis, str]:
    """An objective's axis around what is good, where a few poor values would squeeze it, and what
    to add to the caption.

    Args:
        objective: whose values they are.
        values: as they are shown; NaN counts for nothing.
    """
    title, signed = metric_title(objective.metric), objective.sign * values[np.isfinite(values)]
    if not len(signed):
        return Axis(title=title), ""
    most, usual, least = signed.max(), np.quantile(signed, 0.1), signed.min()
    span = most - usual
    if span == 0 or least >= usual - span:
        return Axis(title=title), ""
    low, high = usual - 0.2 * span, most + 0.08 * span
    number = int((signed < low).sum())
    ends = sorted((objective.sign * low, objective.sign * high))
    points = f"{number:,} poorer point{'' if number == 1 else 's'}"
    return (
        Axis(title=title, range=(float(ends[0]), float(ends[1]))),
        f" The axis leaves out {points}.",
    )


def thinned(numbers: list[int], most: int, keep: list[int] | None = None) -> list[int]:
    """At most so many of some numbers, in order: those to keep, the others evenly spaced."""
    if len(numbers) <= most:
        return numbers
    kept = set((keep or [])[:most])
    rest = [number for number in numbers if number not in kept]
    places = np.linspace(0, len(rest) - 1, most - len(kept)).astype(int) if rest else ()
    return sorted(kept | {rest[place] for place in places})


@dataclass(frozen=True)
class Subject:
    """A sweep to report on."""

    layout: SweepLayout
    storage: str
    """As the user gave it."""
    status: Status
    state: SweepState

    @classmethod
    def read(cls, storage: str, name: str) -> Subject:
        """The sweep of a name, whether or not it is running.

        Raises:
            SweepError: there is no such sweep, or its ledger is damaged.
            StorageLostError: an object store does not answer or refuses.
        """
        layout = SweepLayout.of(storage, name)
        return cls(layout, storage, *read_status(layout, storage))

    @property
    def name(self) -> str:
        """The sweep's name."""
        return self.state.name

    @property
    def metric(self) -> str:
        """The metric of the first objective, which ranks."""
        return self.state.objectives[0].metric

    def running(self, time: int) -> float:
        """Seconds in which a driver ran, from the sweep's first event to a time in milliseconds."""
        paused = sum(
            min(time, resumed) - since for since, resumed in self.state.pauses if since < time
        )
        return (time - self.state.opened_time - paused) / 1000

    @cached_property
    def store(self) -> Store:
        """Where the artifacts are."""
        return Store(self.storage)

    @cached_property
    def rows(self) -> list[TrialRow]:
        """All trials, in order of number."""
        return trial_rows(self.state)

    @cached_property
    def ranked(self) -> list[int]:
        """The completed trials with a score that can be drawn, the best by the first objective
        first."""
        sign = self.state.objectives[0].sign
        scores = {
            number: sign * trial.score
            for number, trial in self.state.trials.items()
            if trial.score is not None and abs(trial.score) < MOST_SHOWN
        }
        return sorted(scores, key=lambda number: (-scores[number], number))

    @cached_property
    def front(self) -> list[int]:
        """The Pareto front by number; with one objective, the best trial."""
        try:
            return [row.trial for row in best(self.state)]
        except NoneCompletedError:
            return []

    @cached_property
    def confirmation(self) -> Confirmation | None:
        """The latest confirmation that has a choice.

        Raises:
            SweepError: the ledger of one is damaged.
            StorageLostError: an object store does not answer or refuses.
        """
        return find_confirmation(self.layout, self.state)

    @property
    def chosen(self) -> TrialState | None:
        """The trial that `magtkd best` selects: the confirmed one; else, of several objectives,
        that of the front which is best in the first. None where none has completed."""
        if self.confirmation is not None and self.confirmation.chosen in self.state.trials:
            return self.state.trials[self.confirmation.chosen]
        number = next((one for one in self.ranked if one in self.front), None)
        return None if number is None else self.state.trials[number]

    def scores(self, numbers: list[int], metric: str | None = None) -> Floats:
        """The objective of some trials at their chosen epoch, as the figures show it; NaN for those
        that did not complete."""
        wanted = metric or self.metric
        place = [one.metric for one in self.state.objectives].index(wanted)
        found = []
        for number in numbers:
            trial = self.state.trials[number]
            is_whole = trial.state == TrialStatus.COMPLETED
            values = trial.objectives if is_whole else None
            found.append(as_shown(wanted, values[place] if values else None))
        return np.array(found, np.float64)

    def reached(self, numbers: list[int]) -> Floats:
        """The best that some trials have reported of the first objective, as the figures show it;
        NaN for those that reported none."""
        sign, found = self.state.objectives[0].sign, []
        for number in numbers:
            reports = self.state.trials[number].reports
            shown = (as_shown(self.metric, one.metrics.get(self.metric)) for one in reports)
            signed = [sign * value for value in shown if math.isfinite(value)]
            found.append(sign * max(signed, default=math.nan))
        return np.array(found, np.float64)
