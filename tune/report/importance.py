"""How much each searched name mattered."""

from __future__ import annotations

import contextlib
import math
import warnings

import numpy as np

from tune.report.charts import Axis, Chart, Marks, Panel
from tune.report.palette import MAIN
from tune.report.subject import Subject, metric_title, thinned
from tune.search import frozen_study

__all__ = ["importance_chart", "importances"]

MOST_FOR_FOREST = 500
ENOUGH = 10
"""Completed trials for each searched name, below which importances are mostly noise."""


def importances(subject: Subject) -> dict[str, float]:
    """The share of the objective's variance that each name explains by itself and with others
    (fANOVA, Hutter et al. 2014), the largest first, over at most `MOST_FOR_FOREST` trials; empty
    where there is nothing to compare. Names that some trials lack are left out."""
    import optuna

    study = frozen_study(subject.state)
    drawable = set(subject.ranked)
    whole = [one for one in study.trials if one.values is not None and one.number in drawable]
    places = thinned(list(range(len(whole))), MOST_FOR_FOREST)
    trials = [whole[place] for place in places]
    if len(trials) < 2 or len({one.values[0] for one in trials}) < 2:
        return {}
    small = optuna.create_study(directions=study.directions)
    small.add_trials(trials)
    evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=32, seed=0)
    # It raises where no name varies, or none explains anything.
    with warnings.catch_warnings(), contextlib.suppress(RuntimeError):
        warnings.simplefilter("ignore")
        found = optuna.importance.get_param_importances(
            small, evaluator=evaluator, target=lambda trial: trial.values[0]
        )
        return {name: float(share) for name, share in found.items() if math.isfinite(share)}
    return {}


def importance_chart(subject: Subject, shares: dict[str, float]) -> Chart:
    """The importances as bars."""
    number = len(subject.ranked)
    caption = (
        f"How much of the variance of {metric_title(subject.metric)} over {number:,} completed "
        "trials each name explains (fANOVA): search the long bars finely, and fix the short ones."
    )
    if number > MOST_FOR_FOREST:
        caption += f" Computed from {MOST_FOR_FOREST} of them, evenly."
    if number < ENOUGH * len(shares):
        caption += (
            f" Caution: for {len(shares)} names, {number} trials are few, and the order may be "
            "chance."
        )
    bars = Marks(
        kind="bars",
        x=100 * np.array(list(shares.values())),
        y=np.arange(len(shares), dtype=np.float64),
        color=MAIN,
        labels=tuple(f"{name}: {100 * share:.1f} %" for name, share in shares.items()),
    )
    panel = Panel(
        x=Axis(title="explained variance [%]"), y=Axis(names=tuple(shares)), marks=(bars,)
    )
    return Chart(
        name="importance",
        title="Importance of each name",
        caption=caption,
        panels=(panel,),
        width=600,
        height=110 + 26 * len(shares),
    )
