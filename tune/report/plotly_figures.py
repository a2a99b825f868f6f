"""Charts as plotly's JSON, one figure a panel, for the browser. Colours of text and background are
the page's."""

from __future__ import annotations

import html
import json
import math
from typing import Any

import numpy as np

from tune.report.charts import LARGE, Axis, Chart, Floats, Heat, Marks, Panel
from tune.report.palette import SCALE

__all__ = ["panel_figures", "plotly_script", "script_json"]

_SHAPES = {"triangle": "triangle-up", "open": "circle-open", "cross": "cross-thin-open"}
_DIGITS = 6


def plotly_script() -> str:
    """plotly.js itself, to be inlined once."""
    from plotly.offline import get_plotlyjs

    script: str = get_plotlyjs()
    return script.replace("</script", "<\\/script")


def panel_figures(chart: Chart) -> list[dict[str, Any]]:
    """A figure for each panel of a chart: `data` and `layout` as plotly.js takes them."""
    return [_figure(panel, chart.height) for panel in chart.panels]


def script_json(tree: Any) -> str:
    """JSON that may stand in a script: nothing in it can end that."""
    text = json.dumps(tree, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    for one in "<>&\u2028\u2029":
        text = text.replace(one, f"\\u{ord(one):04x}")
    return text


def _figure(panel: Panel, height: int) -> dict[str, Any]:
    has_legend = sum(bool(one.name) for one in panel.marks) > 0
    layout: dict[str, Any] = {
        "height": height,
        "xaxis": _axis(panel.x),
        "yaxis": _axis(panel.y) | ({"autorange": "reversed"} if panel.y.names else {}),
        "showlegend": has_legend,
        "barmode": "overlay",
    }
    if panel.title:
        layout["title"] = {"text": _text(panel.title)}
    data = [_trace(one) for one in panel.marks]
    if panel.heat is not None:
        data.insert(0, _heat(panel.heat))
    return {"data": data, "layout": layout}


def _axis(axis: Axis) -> dict[str, Any]:
    tree: dict[str, Any] = {"title": {"text": _text(axis.title)}}
    if axis.log:
        tree["type"] = "log"
    ticks = axis.ticks or tuple(enumerate(axis.names))
    if ticks:
        tree |= {
            "tickmode": "array",
            "tickvals": [position for position, _ in ticks],
            "ticktext": [_text(words) for _, words in ticks],
        }
    if axis.range is not None:
        tree["range"] = [math.log10(end) for end in axis.range] if axis.log else list(axis.range)
    return tree


def _trace(marks: Marks) -> dict[str, Any]:
    tree: dict[str, Any] = {
        "x": _numbers(marks.x),
        "y": _numbers(marks.y),
        "name": _text(marks.name),
        "showlegend": bool(marks.name),
        "opacity": marks.opacity,
    }
    if marks.labels:
        tree |= {"text": [_text(one) for one in marks.labels], "hoverinfo": "text"}
        if marks.kind == "bars":
            tree["textposition"] = "none"
    if marks.kind == "bars":
        return tree | {"type": "bar", "orientation": "h", "marker": {"color": marks.color}}
    tree["type"] = "scatter"
    if marks.kind == "points":
        tree |= {"mode": "markers", "marker": _marker(marks)}
        return tree
    line: dict[str, Any] = {"color": marks.color, "width": marks.size}
    if marks.kind == "steps":
        line["shape"] = "hv"
    if marks.dashed:
        line["dash"] = "dash"
    tree |= {"mode": "lines", "line": line}
    return tree if marks.labels else tree | {"hoverinfo": "skip" if len(marks.x) > 999 else "x+y"}


def _marker(marks: Marks) -> dict[str, Any]:
    marker: dict[str, Any] = {"size": marks.size}
    marker["symbol"] = _SHAPES.get(marks.shape, marks.shape)
    if marks.scale is None:
        marker["color"] = marks.color
    else:
        title = {"text": _text(marks.scale_title)}
        bar = {"title": title, "thickness": 10}
        marker |= {
            "color": _numbers(marks.scale),
            "colorscale": SCALE,
            "showscale": bool(marks.scale_title),
            "colorbar": bar,
        }
    if marks.shape == "open":
        marker["line"] = {"width": 2}
    elif marks.size > LARGE and marks.shape not in ("cross", "x"):
        marker["line"] = {"width": 1, "color": "white"}
    return marker


def _heat(heat: Heat) -> dict[str, Any]:
    bar = {"title": {"text": _text(heat.title)}, "thickness": 10}
    return {
        "type": "heatmap",
        "z": [_numbers(row) for row in heat.values],
        "text": [[_text(cell) for cell in row] for row in heat.texts],
        "texttemplate": "%{text}",
        "hoverinfo": "text",
        "colorscale": SCALE,
        "xgap": 1,
        "ygap": 1,
        "showscale": bool(heat.title),
        "colorbar": bar,
    }


def _numbers(values: Floats) -> list[float | int | None]:
    """With six digits; null where there is no number."""
    return [_number(value) for value in np.asarray(values, np.float64).tolist()]


def _number(value: float) -> float | int | None:
    if not math.isfinite(value):
        return None
    short = float(f"{value:.{_DIGITS}g}")
    return int(short) if short.is_integer() and abs(short) < 2**53 else short


def _text(words: str) -> str:
    """Words as plotly shows them, which takes some of HTML's tags for such."""
    return html.escape(words, quote=False).replace("\n", "<br>")
