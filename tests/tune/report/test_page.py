"""The page is whole, loads nothing, and is made of whatever a ledger has."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest

from magtkd.metrics import Scores
from magtkd.pipeline import Outcome, StageRecord
from tests.tracked import write_story
from tune.ledger import SweepLayout, TestRevealed
from tune.report import make_parts, page_of, write_all_figures
from tune.report.blocks import Figure, Part, Section
from tune.report.sections import sweep_part

HOSTILE = "</script><script>alert(1)</script> <img src=http://x> $a_b$ & \u2028"
LOADING = {"src", "srcset", "data", "poster", "background", "action"}


class Reader(HTMLParser):
    """What a page loads, which ids it has, what its links lead to, and its scripts and text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.scripts: list[str] = []
        self.tags: set[str] = set()
        self.text = ""
        self._place = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self._place = tag
        for name, value in attrs:
            if name in LOADING or (tag == "link" and name == "href"):
                self.loads.append(value or "")
            elif name == "href":
                self.links.append(value or "")
            elif name == "id":
                self.ids.append(value or "")
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._place = ""

    def handle_data(self, data: str) -> None:
        if self._place == "script":
            self.scripts[-1] += data
        else:
            self.text += re.sub(r"/\S*pytest-\S*", "STORAGE", data)


def check(parts: list[Part]) -> Reader:
    """The page of some parts, which must be whole."""
    page = page_of(parts)
    found = Reader(page)
    assert found.loads == ["data:,"]  # the icon, which browsers would ask a server for
    assert len(found.ids) == len(set(found.ids))
    assert all(link.startswith("#") and link[1:] in found.ids for link in found.links)
    assert len(found.scripts) == 2
    for figure in figures_of(found):
        for panel in figure:
            go.Figure(panel)  # refuses what plotly does not know
    return found


def figures_of(found: Reader) -> list[list[dict[str, Any]]]:
    line = re.search(r"^const figures = (.*);$", found.scripts[1], re.MULTILINE)
    assert line is not None
    figures: list[list[dict[str, Any]]] = json.loads(line[1])
    return figures


def test_a_searched_sweep(searched: Any, read: Callable[..., Any]) -> None:
    found = check([sweep_part(read(searched))])
    for title in (
        "Best so far",
        "Learning curves",
        "Importance of each name",
        "Each name alone",
        "Two names at once",
        "Parallel coordinates",
        "Stages and workers",
        "The chosen trial",
        "What was asked",
    ):
        assert title in found.text, title
    assert "diverged" in found.text
    assert "magtkd best toy" in found.text
    assert not re.search(r"\btest\b", found.text.lower())


@pytest.mark.parametrize("count", [0, 1, 2])
@pytest.mark.parametrize("state", ["running", "diverged", "failed", "stopped", "completed"])
def test_few_trials(count: int, state: str, new_story: Any, read: Callable[..., Any]) -> None:
    story = new_story()
    for number in range(count):
        story.trial(number, {"fusion.depth": 1}, [None, 0.5][: 1 + number], state=state)
    found = check([sweep_part(read(story))])
    assert ("The chosen trial" in found.text) == (count > 0 and state == "completed")
    if count and state != "completed":
        assert "has completed" in found.text


def test_several_objectives(new_story: Any, read: Callable[..., Any]) -> None:
    objective = [{"metric": "dev/accuracy"}, {"metric": "dev/loss"}, {"metric": "dev/macro_f1"}]
    story = new_story(objective=objective)
    for number in range(12):
        values = [0.5 + 0.02 * number, 1 + 0.1 * number, 0.4 + 0.01 * (number % 3)]
        story.trial(number, {"fusion.depth": 1 + number % 3}, [0.5], objectives=values)
    story.trial(12, {"fusion.depth": 1}, [0.5], objectives=[0.5, None, 0.5])
    subject = read(story)
    part = sweep_part(subject)
    check([part])
    (front,) = [chart for chart in part.charts if chart.name == "pareto-front"]
    assert [panel.y.title for panel in front.panels] == ["dev loss", "dev macro F1 [points]"]
    assert set(subject.front) >= {0, 11}


@pytest.mark.parametrize("seed", range(6))
def test_numbers_at_their_edges(seed: int, new_story: Any, read: Any) -> None:
    """Of a ledger that was damaged, or of values outside the space."""
    draw = random.Random(seed).choice
    objective: Any = {"metric": draw(["dev/weighted_f1", "dev/loss"])}
    if seed % 3 == 2:
        objective = [{"metric": "dev/weighted_f1"}, {"metric": "dev/loss"}]
    story = new_story(objective=objective)
    scores = (0.0, 0.25, 0.5, 1.0, -3.0, 1e-300, 1e300, -1e308, None)
    for number in range(draw([3, 14, 30])):
        values = {
            "fusion.dropout": draw([0.0, 0.3, 0.9, 5.0]),
            "fusion.learning_rate": draw([1e-5, 1e-3, 0.0, -1.0, 1e300]),
            "fusion.depth": draw([1, 2, 10**15]),
            "fusion.model": draw(["magt", "concat", "other", None]),
        }
        stages = {
            stage: StageRecord(
                f"{stage}{draw([1, 2])}",
                draw([Outcome.TRAINED, Outcome.REUSED, Outcome.STOPPED, Outcome.RECOVERED]),
                draw([0.0, 1.0, 1e300, -1.0]),
                draw([None, 2.0]),
                host=draw([None, "h1"]),
            )
            for stage in ("data", "teacher", "fusion", "a stage of another version")
        }
        reports = [draw(scores) for _ in range(3)]
        state = draw(["completed", "completed", "completed", "stopped", "diverged", "running"])
        found = [draw(scores) for _ in range(1 + (seed % 3 == 2))]
        story.trial(number, values, reports, state=state, objectives=found, **stages)
    check([sweep_part(read(story))])


def test_everything_that_can_happen_in_a_sweep(tmp_path: Path) -> None:
    """Population based training, conditions, resumes, failures with secrets in their message."""
    layout = SweepLayout(tmp_path, "story")
    write_story(layout)
    (name,) = [path.name for path in layout.sweeps.iterdir()]
    found = check(make_parts(str(tmp_path), [name]))
    assert "s3cr3t" not in page_of(make_parts(str(tmp_path), [name]))
    assert "not here" in found.text or "chosen" in found.text


def test_names_and_texts_are_shown_and_never_run(new_story: Any, read: Callable[..., Any]) -> None:
    space = {"fusion.model": {"choice": ["magt", "concat"]}, "data.speakers": {"choice": [HOSTILE]}}
    story = new_story(space={"fusion.model": space["fusion.model"]})
    for number in range(12):
        host = StageRecord(f"k{number}", "trained", 1.0, host=HOSTILE)
        model = ["magt", HOSTILE][number % 2]
        story.trial(number, {"fusion.model": model}, [0.01 * number], fusion=host)
    story.trial(12, {"fusion.model": "magt"}, state="failed")
    found = check([sweep_part(read(story))])
    assert "img" not in found.tags
    assert "alert(1)" in found.text


def test_test_metrics_are_there_once_they_are_revealed(searched: Any, read: Any) -> None:
    number = read(searched).chosen.number
    searched.add(TestRevealed, trial=number, test=Scores(0.4321, 0.1234, {"joy": 0.6}))
    found = check([sweep_part(read(searched))])
    assert "12.34" in found.text
    assert "43.21" in found.text


def test_several_sweeps(searched: Any, new_story: Any, tmp_path: Path) -> None:
    other = new_story(name="other", objective={"metric": "dev/loss"})
    other.trial(0, {"fusion.depth": 2}, [0.5], objectives=[0.9])
    for story in (searched, other, new_story(name="empty")):
        story.write(tmp_path)
    parts = make_parts(str(tmp_path), ["toy", "other", "empty"])
    found = check(parts)
    assert "3 sweeps compared" in found.text
    assert "none completed" in found.text
    assert "their lines do not compare" in found.text


def test_a_confirmation_has_its_place(searched: Any, read: Any, confirm: Any) -> None:
    subject = read(searched)
    best, other = subject.ranked[:2]
    confirm(subject, [(other, (0.61, 0.63)), (best, (0.60, 0.62))])
    found = check([sweep_part(read(searched))])
    assert f"Chosen: trial {other}, " in found.text
    assert f"Cannot be distinguished from it: trial {best}." in found.text
    assert f"The chosen trial: {other}" in found.text
    in_sweep = 100 * subject.state.trials[other].score
    assert f"{in_sweep - 62:+.2f}" in found.text
    audit = found.text[found.text.index("Confirmation on fresh seeds") :]
    assert "on test" not in audit
    assert "test, " not in audit
    confirm(subject, [(other, (0.61, 0.63)), (best, (0.60, 0.62))], test=(0.5, 0.6))
    found = check([sweep_part(read(searched))])
    assert "test, mean on the same seeds55.00" in found.text
    assert "had the seed been chosen there60.00+5.00" in found.text
    # The artifacts are not there, so that nothing can be said of the others on test.
    assert "had the configuration been chosen there" not in found.text


def test_every_figure_is_written_as_pdf_and_svg(searched: Any, read: Any, tmp_path: Path) -> None:
    wanted = {"best-so-far", "importance", "pairs", "timeline"}  # one of each kind
    every = sweep_part(read(searched))
    blocks = [Figure(chart) for chart in every.charts if chart.name in wanted]
    part = Part("Sweep toy", "", sections=[Section("", blocks)])
    written = write_all_figures([part], tmp_path / "figures")
    assert {path.stem for path in written} == wanted
    for path in written:
        assert path.read_bytes().startswith({".pdf": b"%PDF", ".svg": b"<?xml"}[path.suffix])


def test_figures_have_one_name_each_and_captions_are_sentences(searched: Any, read: Any) -> None:
    charts = sweep_part(read(searched)).charts
    assert len({chart.name for chart in charts}) == len(charts)
    for chart in charts:
        assert chart.caption.endswith("."), chart.name
        for panel in chart.panels:
            assert panel.x.title or panel.x.ticks or panel.x.names
            assert panel.y.title or panel.y.names
