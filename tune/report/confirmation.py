"""The best again on fresh seeds, and what choosing on few seeds, or on test, would have claimed."""

from __future__ import annotations

import statistics

import numpy as np

from magtkd.errors import ArtifactError, DataError, StorageLostError
from magtkd.scoring import score_split
from magtkd.store import Store
from tune.ledger import TrialState, TrialStatus
from tune.report.blocks import Block, Figure, Notes, Section, Table
from tune.report.charts import Axis, Chart, Marks, Panel, joined
from tune.report.palette import ACCENT, GREY, MAIN
from tune.report.subject import as_shown, metric_title
from tune.results import Confirmation, confirmation_lines, confirmed_rows

__all__ = ["confirmation_section"]


def confirmation_section(found: Confirmation, store: Store) -> Section:
    """Means and intervals, who could not be told apart, and the audit.

    Args:
        found: the confirmation.
        store: where its artifacts are.
    """
    lines = [f"{line[0].upper()}{line[1:]}." for line in confirmation_lines(found.state)]
    failed = [row for row in confirmed_rows(found.state) if row.mean is None]
    lines += [f"Trial {row.trial} failed: {row.message}." for row in failed]
    blocks: list[Block] = [Notes(lines), Figure(_chart(found)), _audit(found, store)]
    return Section("Confirmation on fresh seeds", blocks)


def _trials_of(found: Confirmation, number: int) -> list[TrialState]:
    """The completed trainings of a configuration, which the sweep's trial of a number had."""
    race = found.state.race
    assert race is not None
    return [
        trial
        for trial in found.state.trials.values()
        if trial.state == TrialStatus.COMPLETED and race.entry_of(trial.suggested).trial == number
    ]


def _chart(found: Confirmation) -> Chart:
    race, metric = found.state.race, found.state.objectives[0].metric
    assert race is not None
    every = [row for row in confirmed_rows(found.state) if row.mean is not None]
    rows = np.arange(len(every), dtype=np.float64)

    def shown(values: list[float | None]) -> list[float]:
        return [as_shown(metric, value) for value in values]

    of_seeds = [
        (as_shown(metric, trial.score), place)
        for place, row in zip(rows, every, strict=True)
        for trial in _trials_of(found, row.trial)
    ]
    x, y = joined(
        [
            (shown([row.low, row.high]), [place, place])
            for place, row in zip(rows, every, strict=True)
        ]
    )
    seeds = np.array(of_seeds)
    means = np.array(shown([row.mean for row in every]))
    before = np.array(shown([row.in_sweep for row in every]))
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
    names = tuple(f"trial {row.trial}" for row in every)
    return Chart(
        name="confirmation",
        title="Means over fresh seeds",
        caption=(
            f"Each interval has the mean over seeds with {100 * race.confidence:g} % "
            "confidence: the further a ring lies beyond its interval, the more its score in "
            "the sweep was luck."
        ),
        panels=(Panel(x=Axis(title=metric_title(metric)), y=Axis(names=names), marks=marks),),
        width=600,
        height=130 + 34 * len(names),
    )


def _audit(found: Confirmation, store: Store) -> Table:
    metric, row = found.state.objectives[0].metric, found.row
    rows = [
        (
            "dev in the sweep, by which it was found",
            _points(metric, row.in_sweep),
            _points(metric, row.optimism, signed=True),
        ),
        ("dev, mean on fresh seeds", _points(metric, row.mean), ""),
    ]
    caption = (
        "Optimism is by how much a figure flatters the choice, against the mean of the same split."
    )
    name = metric.removeprefix("dev/")
    # Of a loss there is nothing on test; before it is revealed, nothing of test is shown.
    if found.test is not None and name in found.test:
        honest = found.test[name]["mean"]
        rows.append(("test, mean on the same seeds", _points(metric, honest), ""))
        luckiest = max(getattr(trial.test, name) for trial in found.trials)
        claims = {"test, had the seed been chosen there": luckiest}
        best = _best_on_test(found, store, name)
        if best is not None:
            claims["test, had the configuration been chosen there, of those confirmed"] = best
        rows += [
            (words, _points(metric, claim), _points(metric, claim - honest, signed=True))
            for words, claim in claims.items()
        ]
        caption += (
            " What choosing the epoch on test would have claimed is not known: the artifacts have "
            "the predictions of the epoch that dev chose, alone."
        )
    return Table(("audit", metric_title(metric), "optimism"), rows, caption)


def _points(metric: str, value: float | None, *, signed: bool = False) -> str:
    return f"{as_shown(metric, value):{'+' if signed else ''}.2f}"


def _best_on_test(found: Confirmation, store: Store, name: str) -> float | None:
    """The highest mean on test of a confirmed configuration, over the seeds that it was given; None
    where an artifact is not here."""
    means = []
    try:
        for row in confirmed_rows(found.state):
            if row.mean is not None:
                scores = [_on_test(trial, store, name) for trial in _trials_of(found, row.trial)]
                means.append(statistics.fmean(scores))
    except (ArtifactError, DataError, StorageLostError):
        return None
    return max(means)


def _on_test(trial: TrialState, store: Store, name: str) -> float:
    """A score on test: as it was revealed, or else from the artifacts."""
    scores = trial.test
    if scores is None:
        if not {"data", "fusion"} <= trial.stages.keys():
            raise ArtifactError("no artifact of this trial is recorded")
        data = store.read("data", trial.stages["data"].key).table
        fusion = store.read("fusion", trial.stages["fusion"].key, weights=False).table
        scores = score_split(data, fusion, "test")
    return float(getattr(scores, name))
