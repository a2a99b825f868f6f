"""A paper's table: cells with means and deviations, and what can be said of their differences."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tune.config import TableSpec
from tune.stats import NUM_DRAWS, holm, intervals, permutation_p, score_counts

__all__ = ["LEVEL", "Cell", "Comparison", "PaperTable", "Trained", "make_paper_table"]

LEVEL = 0.05
"""Corrected p-values below it are marked."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A row on a data set: what its trainings predict of test."""

    labels: tuple[str, ...]
    seeds: tuple[int, ...]
    counts: NDArray[np.int64]
    """[seed, conversation, true class, predicted class]."""
    keys: tuple[dict[str, str], ...]
    """Of the artifacts by stage, for each seed."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A cell against the reference's; differences are this row less the reference."""

    difference: float
    low: float
    """The lower end of the difference's 95 % interval, over conversations and seeds."""
    high: float
    """Its upper end."""
    p: float
    """Of `both predict equally well`; see `tune.stats.permutation_p`."""
    p_corrected: float
    """The same after Holm's correction for all comparisons of the table."""

    @property
    def is_significant(self) -> bool:
        """Whether the cell gets a dagger."""
        return self.p_corrected < LEVEL


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A figure of the table, between 0 and 1; a published one has a mean alone."""

    row: str
    data: str
    metric: str
    mean: float
    deviation: float | None = None
    """The standard deviation over seeds, of a sample."""
    low: float | None = None
    """The lower end of the mean's 95 % interval, over conversations and seeds."""
    high: float | None = None
    """Its upper end."""
    values: tuple[float, ...] = ()
    """By seed."""
    seeds: tuple[int, ...] = ()
    keys: tuple[dict[str, str], ...] = ()
    """Of the artifacts that it came from, by stage, for each seed."""
    comparison: Comparison | None = None
    """None for the reference and for published figures."""
    is_best: bool = False
    """Whether no row shows a better figure."""
    is_second: bool = False
    """Whether only the best ones are better."""

    @property
    def shown(self) -> str:
        """The mean as the table shows it, in percent."""
        return f"{100 * self.mean:.2f}"

    def to_json(self) -> dict[str, Any]:
        """The cell as a JSON object."""
        tree = asdict(self)
        if self.comparison is not None:
            tree["comparison"]["is_significant"] = self.comparison.is_significant
        return tree


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """A whole table."""

    spec: TableSpec
    columns: dict[str, tuple[str, ...]]
    """The metrics of each data set."""
    cells: dict[tuple[str, str, str], Cell]
    """By row, data set and metric; those without a figure are not in it."""
    notes: tuple[str, ...]
    """Where rows are from, what failed, what was tried and revealed: sentences."""
    is_whole: bool = True
    """Whether all trainings have completed."""

    @property
    def num_comparisons(self) -> int:
        """How many p-values there are."""
        return sum(cell.comparison is not None for cell in self.cells.values())

    def to_json(self) -> dict[str, Any]:
        """The table as a JSON object."""
        return {
            "table": self.spec.name,
            "seeds": list(self.spec.seeds),
            "reference": self.spec.reference,
            "split": "test",
            "num_draws": NUM_DRAWS,
            "num_comparisons": self.num_comparisons,
            "sources": {row.name: row.source for row in self.spec.rows if row.source},
            "cells": [cell.to_json() for cell in self.cells.values()],
            "notes": list(self.notes),
        }


def make_paper_table(
    spec: TableSpec,
    trained: Mapping[tuple[str, str], Trained],
    notes: Sequence[str],
    *,
    is_whole: bool = True,
    num_draws: int = NUM_DRAWS,
) -> PaperTable:
    """Compute the cells of a table.

    Args:
        spec: what it has.
        trained: the rows that were trained, by row and data set.
        notes: sentences below it.
        is_whole: whether all trainings have completed.
        num_draws: of the tests and intervals.
    """
    labels = {data: one.labels for (_, data), one in trained.items()}
    columns = {data: _metrics(spec, labels.get(data, ())) for data in spec.data}
    cells: dict[tuple[str, str, str], Cell] = {}
    for row in spec.rows:
        for data, metrics in columns.items():
            figures = row.figures(data, is_only=len(spec.data) == 1)
            for metric in metrics:
                place = row.name, data, metric
                if (one := trained.get((row.name, data))) is not None:
                    against = trained.get((spec.reference, data))
                    is_reference = row.name == spec.reference
                    cells[place] = _cell(place, one, None if is_reference else against, num_draws)
                elif metric in figures:
                    cells[place] = Cell(
                        row=row.name, data=data, metric=metric, mean=figures[metric] / 100
                    )
    _correct(cells)
    for data, metrics in columns.items():
        for metric in metrics:
            _rank(
                [cell for cell in cells.values() if (cell.data, cell.metric) == (data, metric)],
                cells,
            )
    return PaperTable(
        spec=spec, columns=columns, cells=cells, notes=tuple(notes), is_whole=is_whole
    )


def _metrics(spec: TableSpec, labels: Sequence[str]) -> tuple[str, ...]:
    each = tuple(f"f1/{label}" for label in labels)
    found = [one for metric in spec.metrics for one in (each if metric == "f1" else (metric,))]
    return tuple(dict.fromkeys(found))


def _cell(
    place: tuple[str, str, str], one: Trained, against: Trained | None, num_draws: int
) -> Cell:
    row, data, metric = place
    values = score_counts(one.counts.sum(axis=1), metric, one.labels).tolist()
    interval = intervals(one.counts, None, metric, one.labels, num_draws=num_draws)
    comparison = None
    if against is not None:
        reference = score_counts(against.counts.sum(axis=1), metric, one.labels)
        of_gap = intervals(one.counts, against.counts, metric, one.labels, num_draws=num_draws)
        p = permutation_p(one.counts, against.counts, metric, one.labels, num_draws)
        comparison = Comparison(
            difference=statistics.fmean(values) - float(reference.mean()),
            low=of_gap.low,
            high=of_gap.high,
            p=p,
            p_corrected=p,  # until all are known
        )
    return Cell(
        row=row,
        data=data,
        metric=metric,
        mean=statistics.fmean(values),
        deviation=statistics.stdev(values),
        low=interval.low,
        high=interval.high,
        values=tuple(values),
        seeds=one.seeds,
        keys=one.keys,
        comparison=comparison,
    )


def _correct(cells: dict[tuple[str, str, str], Cell]) -> None:
    """Correct the p-values of all comparisons for their number."""
    compared = {
        place: cell.comparison for place, cell in cells.items() if cell.comparison is not None
    }
    corrected = holm([one.p for one in compared.values()])
    for (place, comparison), p in zip(compared.items(), corrected, strict=True):
        cells[place] = replace(cells[place], comparison=replace(comparison, p_corrected=p))


def _rank(column: Sequence[Cell], cells: dict[tuple[str, str, str], Cell]) -> None:
    """Mark the best and the second of a column, by what is shown: figures that look the same are
    marked the same."""
    shown = sorted({float(cell.shown) for cell in column}, reverse=True)
    if len(shown) < 2:
        return
    for cell in column:
        place, own = (cell.row, cell.data, cell.metric), float(cell.shown)
        cells[place] = replace(cell, is_best=own == shown[0], is_second=own == shown[1])
