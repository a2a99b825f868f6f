"""Charts as PDF and SVG files for a paper, by matplotlib, which needs no browser."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from magtkd.errors import InputError
from tune.report.charts import LARGE, WIDE, Axis, Chart, Heat, Marks, Panel
from tune.report.palette import SCALE

__all__ = ["FORMATS", "write_figures"]

FORMATS = ("pdf", "svg")
MOST_VECTORS = 5000
"""Points of one kind that are drawn as such; more become a picture in the file."""
_SHAPES = {
    "circle": "o",
    "square": "s",
    "diamond": "D",
    "triangle": "^",
    "cross": "+",
    "x": "x",
    "star": "*",
    "open": "o",
}
_STYLE = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "pdf.fonttype": 42,  # text that stays text
    "svg.fonttype": "none",
    "svg.hashsalt": "magtkd",  # the same names in each file
}


def write_figures(charts: list[Chart], folder: Path) -> list[Path]:
    """Write each chart as `NAME.pdf` and `NAME.svg`; gives the files.

    Raises:
        InputError: the folder cannot be written.
    """
    from matplotlib import rc_context

    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with rc_context(_STYLE):
            for chart in charts:
                figure = _draw(chart)
                figure.draw_without_rendering()
                figure.set_layout_engine("none")  # done, and not to be done again for each format
                for kind in FORMATS:
                    path = folder / f"{chart.name}.{kind}"
                    figure.savefig(path, metadata=_undated(kind))
                    written.append(path)
    except OSError as error:
        raise InputError(
            f"--figures {folder}: cannot write: {error.strerror}; name another folder"
        ) from None
    return written


def _undated(kind: str) -> dict[str, None]:
    return {"CreationDate": None} if kind == "pdf" else {"Date": None}


def _draw(chart: Chart) -> Any:
    from matplotlib.figure import Figure

    is_wide = chart.width > WIDE
    columns = 1 if is_wide else min(3, len(chart.panels))
    rows = math.ceil(len(chart.panels) / columns)
    width = 6.9 if columns > 1 or is_wide else 4.0  # inches, of a page or of most of a column
    size = (width, rows * min(8.0, max(2.3, chart.height / 130)))
    figure = Figure(figsize=size, layout="constrained")
    for place, panel in enumerate(chart.panels, start=1):
        axes = figure.add_subplot(rows, columns, place)
        _draw_panel(figure, axes, panel, num_names=4 if columns == 1 else 1)
    return figure


def _draw_panel(figure: Any, axes: Any, panel: Panel, *, num_names: int) -> None:
    """Draw a panel, with so many names side by side in its legend."""
    if panel.heat is not None:
        _draw_heat(figure, axes, panel.heat)
    for marks in panel.marks:
        drawn = _draw_marks(axes, marks)
        if marks.scale is not None and marks.scale_title:
            figure.colorbar(drawn, ax=axes, label=_text(marks.scale_title), shrink=0.8)
    _set_axis(axes.xaxis, panel.x)
    _set_axis(axes.yaxis, panel.y)
    if panel.y.names and panel.heat is None:
        axes.invert_yaxis()
    if panel.title:
        axes.set_title(_text(panel.title), fontsize=8)
    if any(one.name for one in panel.marks):
        place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderpad": 0}
        axes.legend(fontsize=6, ncols=num_names, **place)


def _draw_marks(axes: Any, marks: Marks) -> Any:
    is_many = len(marks.x) > MOST_VECTORS
    shared = {
        "alpha": marks.opacity,
        "label": _text(marks.name) if marks.name else None,
        "rasterized": is_many,
    }
    if marks.kind == "bars":
        return axes.barh(marks.y, marks.x, color=marks.color, **shared)
    if marks.kind == "points":
        color: dict[str, Any] = {"color": marks.color}
        if marks.shape == "open":
            color = {"facecolors": "none", "edgecolors": marks.color}
        if marks.scale is not None:
            color = {"c": marks.scale, "cmap": _colors()}
        area = (0.6 * marks.size) ** 2
        drawn = axes.scatter(
            marks.x, marks.y, s=area, marker=_SHAPES[marks.shape], linewidths=0.8, **color, **shared
        )
        if marks.size > LARGE and marks.shape not in ("open", "x", "cross"):
            drawn.set_edgecolors("white")
        return drawn
    style = {"linestyle": "--" if marks.dashed else "-", "linewidth": 0.6 * marks.size}
    drawn = "steps-post" if marks.kind == "steps" else "default"
    style["solid_capstyle"] = "butt"
    return axes.plot(marks.x, marks.y, color=marks.color, drawstyle=drawn, **style, **shared)


def _draw_heat(figure: Any, axes: Any, heat: Heat) -> None:
    image = axes.imshow(heat.values, cmap=_colors(), aspect="auto")
    if heat.title:
        figure.colorbar(image, ax=axes, label=_text(heat.title), shrink=0.8)
    axes.grid(visible=False)
    for row, texts in enumerate(heat.texts):
        for column, text in enumerate(texts):
            axes.text(column, row, _text(text), ha="center", va="center", fontsize=6)


def _set_axis(axis: Any, wanted: Axis) -> None:
    axis.set_label_text(_text(wanted.title))
    side = axis.axis_name
    if wanted.log:
        getattr(axis.axes, f"set_{side}scale")("log")
    ticks = wanted.ticks or tuple(enumerate(wanted.names))
    if ticks:
        labels = [_text(words) for _, words in ticks]
        axis.set_ticks([position for position, _ in ticks], labels=labels)
        if side == "x" and max(map(len, labels)) * len(labels) > 30:
            axis.set_tick_params(rotation=30)
    if wanted.range is not None:
        getattr(axis.axes, f"set_{side}lim")(*wanted.range)


def _colors() -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("magtkd", list(SCALE))


def _text(words: str) -> str:
    """Words as they are: a dollar would begin a formula."""
    return words.replace("$", r"\$")
