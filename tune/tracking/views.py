"""Views of a sweep in MLflow's page of runs: which columns and charts answer which question.

A view is a tag of the experiment, `mlflow.sharedViewState.KEY`, as MLflow's own page writes it. The
keys here begin with `magtkd-`, and the times in a view are those of the ledger, so that it is the
same whenever it is written, and one that a person has changed is told from ours by its times.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Sequence
from typing import Any

from tune.ledger import RaceSetup, SweepState
from tune.tracking.projection import legal_name

__all__ = [
    "BEST_FIRST",
    "VIEW_TAG",
    "confirmed_key",
    "is_ours",
    "view_links",
    "view_path",
    "views_of",
]

VIEW_TAG = "mlflow.sharedViewState."
BEST_FIRST, VALUES, CURVES = "magtkd-best-first", "magtkd-values", "magtkd-curves"

MOST_COLUMNS, MOST_AXES, MOST_SCATTERED = 30, 10, 9
CLOSED = (
    "best/dev",
    "chosen/dev",
    "dev",
    "dev/f1",
    "train",
    "seconds",
    "samples_per_second",
    "peak_memory",
)
"""Sections that MLflow adds by itself; below ours, and folded."""

View = dict[str, Any]


def view_path(experiment_id: str, key: str | None, *, charts: bool = False) -> str:
    """What leads to a view behind the address of a server; without a key, to the plain table."""
    path = f"/#/experiments/{experiment_id}/runs?workflowType=machine_learning"
    mode = "&compareRunsMode=CHART" if charts else ""
    return f"{path}{mode}" + ("" if key is None else f"&viewStateShareKey={key}")


def confirmed_key(race: RaceSetup) -> str:
    """The key of a confirmation's view."""
    return f"magtkd-{race.name}"


def views_of(state: SweepState) -> dict[str, str]:
    """The tags of an experiment that are the views of a sweep, or that of its confirmation once it
    has chosen: name to value.

    Args:
        state: the sweep's, or the confirmation's.
    """
    if not state.config:
        return {}
    if state.race is None:
        views = {
            BEST_FIRST: ("Best first", _best_first(state)),
            VALUES: ("Values against dev", _values(state)),
            CURVES: ("Learning curves", _curves(state)),
        }
    elif state.chosen is None:
        return {}
    else:
        own = state.race.name
        name = "Confirmed" if own == "confirm" else f"Confirmed ({own})"
        views = {confirmed_key(state.race): (name, _confirmed(state))}
    return {
        VIEW_TAG + key: _envelope(name, view, state.opened_time)
        for key, (name, view) in views.items()
    }


def view_links(race: RaceSetup | None, experiment_id: str) -> dict[str, str]:
    """Links from the description of a run to the views of its sweep, or to that of its
    confirmation, by name."""
    if race is not None:
        return {"means by configuration": _link(experiment_id, confirmed_key(race))}
    return {
        "Best first": _link(experiment_id, BEST_FIRST, charts=False),
        "Values against dev": _link(experiment_id, VALUES),
        "Learning curves": _link(experiment_id, CURVES),
    }


def _link(experiment_id: str, key: str, *, charts: bool = True) -> str:
    return view_path(experiment_id, key, charts=charts).removeprefix("/")


def is_ours(value: str) -> bool:
    """Whether a view is as it was written here: MLflow's page notes when it changes one."""
    try:
        found = json.loads(value)
        return bool(found["createdAt"] == found["updatedAt"])
    except (KeyError, TypeError, ValueError):
        return False


def _envelope(name: str, view: View, at: int) -> str:
    packed = base64.b64encode(zlib.compress(json.dumps(view).encode(), 9)).decode()
    return json.dumps(
        {"name": name, "createdAt": at, "updatedAt": at, "state": f"deflate;{packed}"}
    )


# --- views ------------------------------------------------------------------------------------


def _best_first(state: SweepState) -> View:
    columns = [
        *(_column("metrics", f"chosen/{one.metric}") for one in state.objectives),
        *(_column("params", name) for name in _searched(state)[:MOST_COLUMNS]),
        *(_column("tags", f"magtkd.{name}") for name in ("epoch", "state")),
    ]
    return _view(state, columns, by=f"chosen/{state.objectives[0].metric}")


def _values(state: SweepState) -> View:
    objective, names = state.objectives[0], _searched(state)
    chosen, best = legal_name(f"chosen/{objective.metric}"), f"best/{objective.metric}"
    charts: list[View] = [
        {
            "type": "PARALLEL",
            "displayName": f"All searched values, and {objective.metric}",
            "selectedParams": names[:MOST_AXES],
            "selectedMetrics": [chosen],
            "showAllRuns": True,
        },
        *(
            {
                "type": "SCATTER",
                "displayName": f"{objective.metric} by {name}",
                "xaxis": {"key": name, "type": "PARAM"},
                "yaxis": {"key": chosen, "type": "METRIC", "dataAccessKey": chosen},
            }
            for name in names[:MOST_SCATTERED]
        ),
    ]
    columns = [_column("metrics", f"chosen/{objective.metric}")]
    columns += [_column("params", name) for name in names[:MOST_COLUMNS]]
    if len(state.objectives) > 1:
        return _view(state, columns, charts, by=f"chosen/{objective.metric}")
    charts.insert(1, _line(best, "Best so far, by completed trials"))
    # The sweep's own run, which alone has the best so far, comes first: a page has 100 runs.
    return _view(state, columns, charts, by=best, only_trials=False)


def _curves(state: SweepState) -> View:
    metrics = [*(one.metric for one in state.objectives), "dev/accuracy", "dev/loss", "train/loss"]
    charts = [_line(name, name) for name in dict.fromkeys(metrics)]
    chosen = f"chosen/{state.objectives[0].metric}"
    columns = [_column("metrics", chosen)]
    return _view(state, columns, charts, by=chosen)


def _confirmed(state: SweepState) -> View:
    objective = state.objectives[0]
    chosen = f"chosen/{objective.metric}"
    columns = [
        _column("metrics", chosen),
        _column("params", "seed"),
        *(_column("params", name) for name in _searched(state)[:MOST_COLUMNS]),
        _column("tags", "magtkd.confirms"),
    ]
    key = legal_name(chosen)
    bars = {"type": "BAR", "displayName": f"Mean {objective.metric} by configuration"}
    charts = [{**bars, "metricKey": key, "dataAccessKey": key}]
    by_configuration = {"mode": "tag", "groupByData": "magtkd.confirms"}
    grouped = {"aggregateFunction": "average", "groupByKeys": [by_configuration]}
    return _view(state, columns, charts, by=chosen) | {"groupBy": grouped}


def _view(
    state: SweepState,
    columns: Sequence[str],
    charts: Sequence[View] = (),
    *,
    by: str,
    only_trials: bool = True,
) -> View:
    """A view of a sweep's runs, sorted by a metric, the better first."""
    own = f"tags.`magtkd.sweep` = '{state.sweep_id}'"
    view: View = {
        "searchFilter": f"{own} AND tags.`magtkd.trial` != ''" if only_trials else own,
        "orderByKey": _column("metrics", by),
        "orderByAsc": state.objectives[0].sign < 0,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": list(columns),
        "columnOrder": list(columns),
        "columnWidths": {name: max(90, 8 * len(name)) for name in columns},
        "runsHiddenMode": "SHOW_ALL",
        "hideEmptyCharts": True,
    }
    if charts:
        sections = [{"uuid": "magtkd", "name": state.name, "columns": 2}]
        sections += [{"uuid": f"magtkd-{name}", "name": name} for name in CLOSED]
        view["compareRunSections"] = [
            {"display": place == 0, "isReordered": True, **section}
            for place, section in enumerate(sections)
        ]
        # Else the sections are sorted by name, and the view's own is anywhere.
        view["isAccordionReordered"] = True
        view["compareRunCharts"] = [
            {
                "uuid": f"magtkd-{place}",
                "metricSectionId": "magtkd",
                "deleted": False,
                "isGenerated": False,
                "runsCountToCompare": 100,
                **chart,
            }
            for place, chart in enumerate(charts)
        ]
    return view


def _line(metric: str, name: str) -> View:
    key = legal_name(metric)
    return {
        "type": "LINE",
        "displayName": name,
        "metricKey": key,
        "selectedMetricKeys": [key],
        "lineSmoothness": 0,
        "xAxisKey": "step",
        "xAxisScaleType": "linear",
        "scaleType": "linear",
        "selectedXAxisMetricKey": "",
        "range": {},
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "ignoreOutliers": False,
        "useGlobalXaxisKey": True,
        "useGlobalLineSmoothing": True,
    }


def _searched(state: SweepState) -> list[str]:
    """The searched names, as the parameters of runs have them."""
    return [legal_name(name) for name in state.config.get("space", {})]


def _column(kind: str, name: str) -> str:
    return f"{kind}.`{legal_name(name)}`"
