"""The page: one HTML file that loads nothing, with its figures as plotly's data in it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Any

from tune.redact import redact
from tune.report.blocks import Part
from tune.report.charts import WIDE
from tune.report.plotly_figures import panel_figures, plotly_script, script_json

__all__ = ["MARK", "render"]

MARK = "<!doctype html>\n<!-- magtkd report -->"
"""How a report begins."""


def render(parts: Sequence[Part], *, version: str, watched: str | None = None) -> str:
    """The page as HTML.

    Args:
        parts: its parts, from the top.
        version: magtkd's.
        watched: where it is served, the version of what is shown, by which the page asks for a
            newer one.
    """
    from markupsafe import Markup

    charts = [chart for part in parts for chart in part.charts]
    figures = [panel_figures(chart) for chart in charts]
    numbered = {id(chart): number for number, chart in enumerate(charts)}
    page: str = _template().render(
        parts=parts,
        number_of=lambda chart: numbered[id(chart)],
        figures=Markup(redact(script_json(figures))),
        plotly=Markup(plotly_script()),
        written=datetime.now().strftime("%Y-%m-%d %H:%M:%S"),
        version=version,
        wide=WIDE,
        watched=Markup(script_json(watched)),
    )
    return f"{MARK}\n{page}"


@cache
def _template() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("tune.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        # Words are shown without passwords and tokens, wherever in a ledger they are.
        finalize=lambda value: redact(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.jinja")
