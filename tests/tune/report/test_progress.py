"""Best so far follows from the ledger: its scores, its seconds, and what reuse saved."""

import numpy as np
import pytest

from magtkd.pipeline import StageRecord
from tune.ledger import SweepResumed
from tune.report.comparison import compared
from tune.report.progress import in_unit, progress_chart, progress_of

RATE = {"fusion.learning_rate": 1e-3}


def trained(key, seconds):
    return StageRecord(key, "trained", seconds)


def reused(key, saved):
    return StageRecord(key, "reused", 0.0, saved)


@pytest.fixture
def story(new_story):
    story = new_story()
    story.trial(0, RATE, [0.5], teacher=trained("t", 10.0), fusion=trained("a", 2.0))
    story.trial(1, RATE, [None], state="diverged", teacher=reused("t", 10.0))
    story.trial(2, RATE, [0.4], teacher=reused("t", None), fusion=trained("b", 3.0))
    story.trial(3, RATE, [0.7], teacher=reused("t", 10.0), fusion=trained("c", 4.0))
    return story


def test_compute_and_what_reuse_saved_add_up(story, read):
    found = progress_of(read(story))
    assert found.numbers == [0, 1, 2, 3]
    assert found.spent.tolist() == [12.0, 12.0, 15.0, 19.0]
    # What the third reused is not recorded with it, and is known from who trained it.
    assert found.saved.tolist() == [0.0, 10.0, 20.0, 30.0]
    assert np.allclose(found.scores, [50, np.nan, 40, 70], equal_nan=True)
    assert found.best.tolist() == [50, 50, 50, 70]


def test_a_loss_is_best_where_it_is_least(new_story, read):
    story = new_story(objective={"metric": "dev/loss"})
    for number, loss in enumerate([0.9, 0.7, 0.8]):
        story.trial(number, RATE, [0.5], objectives=[loss])
    assert progress_of(read(story)).best.tolist() == [0.9, 0.7, 0.7]


def test_wall_time_is_that_in_which_a_driver_ran(story, read):
    before = progress_of(read(story)).wall
    story.add(SweepResumed, at=5000.0)
    story.trial(4, RATE, [0.6])
    after = progress_of(read(story)).wall
    assert after[:4].tolist() == before.tolist()
    assert after[4] - after[3] == 3.0  # suggested, reported and ended, a second each


def test_the_lines_of_a_chart_keep_every_gain_and_the_end(story, read):
    chart = progress_chart(read(story))
    assert [panel.x.title for panel in chart.panels] == [
        "trials that ended",
        "wall time [s]",
        "compute [stage-s]",
    ]
    points, line = chart.panels[0].marks
    assert (points.x.tolist(), points.y.tolist()) == ([1, 3, 4], [50, 40, 70])
    assert (line.x.tolist(), line.y.tolist()) == ([1, 4], [50, 70])
    _, with_reuse, without = chart.panels[2].marks
    assert (with_reuse.x[-1], without.x[-1]) == (19.0, 49.0)
    assert "49 stage-s instead of 19, 2.58 times as much" in chart.caption


def test_thousands_of_points_are_thinned_and_it_is_said(new_story, read, monkeypatch):
    monkeypatch.setattr("tune.report.progress.MOST_POINTS", 10)
    story = new_story()
    for number in range(40):
        story.trial(number, RATE, [0.2 + 0.6 * (number >= 30)])
    chart = progress_chart(read(story))
    points = chart.panels[0].marks[0]
    assert len(points.x) == 10
    assert 31 in points.x  # the gain
    assert "Of 40 points, 10 are drawn" in chart.caption


def test_sweeps_are_compared_on_one_axis(story, new_story, read):
    other = new_story(name="other")
    other.trial(0, RATE, [0.6], fusion=trained("x", 400.0))
    (panel,) = compared([read(story), read(other)]).panels
    assert [marks.name for marks in panel.marks] == ["toy", "other"]
    assert panel.x.title == "compute [stage-min]"
    assert panel.marks[1].x.tolist() == [400 / 60]


@pytest.mark.parametrize(
    ("longest", "unit"), [(0.0, (1.0, "s")), (301.0, (60.0, "min")), (86400.0, (3600.0, "h"))]
)
def test_times_are_in_the_unit_in_which_they_are_read(longest, unit):
    assert in_unit(longest) == unit
