"""What the searched values did: properties of the figures' tables."""

import math

import numpy as np
import pytest

from tune.report.importance import importance_chart, importances
from tune.report.knob import Knob, knobs_of
from tune.report.knobs import pair_charts, parallel_chart, slice_chart
from tune.report.subject import close_axis
from tune.space import Objective, parse_entry


def knob(**tree):
    return Knob("fusion.x", parse_entry(tree))


def test_the_name_that_decides_is_the_most_important(searched, read):
    shares = importances(read(searched))
    assert next(iter(shares)) == "fusion.learning_rate"
    assert math.isclose(sum(shares.values()), 1.0, rel_tol=1e-6)
    assert set(shares) == set(searched.space)


def test_few_trials_get_a_caution(new_story, read):
    story = new_story()
    for number in range(8):
        values = {"fusion.learning_rate": 1e-4 * (1 + number), "fusion.depth": 1 + number % 3}
        values |= {"fusion.dropout": 0.1 * number, "fusion.model": "magt"}
        story.trial(number, values, [0.1 * number])
    subject = read(story)
    assert (
        "Caution: for 4 names, 8 trials are few"
        in importance_chart(subject, importances(subject)).caption
    )


@pytest.mark.parametrize("scores", [[], [0.5], [0.5, 0.5, 0.5]])
def test_where_nothing_differs_there_is_no_importance(new_story, read, scores):
    story = new_story()
    for number, score in enumerate(scores):
        story.trial(number, {"fusion.depth": 1 + number}, [score])
    assert importances(read(story)) == {}


def test_cells_are_the_means_of_their_trials(searched, read):
    subject = read(searched)
    knobs = [one for one in knobs_of(subject) if one.name in ("fusion.depth", "fusion.model")]
    (chart,) = pair_charts(subject, knobs)
    (panel,) = chart.panels
    assert (panel.x.names, panel.y.names) == (("1", "2", "3"), ("concat", "magt"))
    for column, depth in enumerate((1, 2, 3)):
        for row, model in enumerate(("concat", "magt")):
            numbers = [
                one
                for one in subject.ranked
                if subject.state.trials[one].values["fusion.depth"] == depth
                and subject.state.trials[one].values["fusion.model"] == model
            ]
            assert np.isclose(panel.heat.values[row, column], subject.scores(numbers).mean())


def test_every_completed_trial_is_in_every_slice(searched, read):
    subject = read(searched)
    chart = slice_chart(subject, knobs_of(subject))
    assert [panel.x.title for panel in chart.panels] == list(searched.space)
    for panel in chart.panels:
        stopped, completed, best = panel.marks
        assert len(completed.x) == len(subject.ranked)
        assert np.isfinite(completed.x).all()
        assert len(best.x) == 1
        assert len(stopped.x) == 5
        assert stopped.y.max() <= 80  # the best of their reports
    assert "The grey ones were stopped" in chart.caption


def test_parallel_lines_are_in_the_range_and_in_one_group(searched, read):
    subject = read(searched)
    (panel,) = parallel_chart(subject, knobs_of(subject)).panels
    num_rows = len(searched.space) + 1
    assert len(panel.y.names) == num_rows
    lines = sum(int(np.isnan(marks.x).sum()) + 1 for marks in panel.marks)
    assert lines == len(subject.ranked)
    x = np.concatenate([marks.x for marks in panel.marks])
    assert np.nanmin(x) >= -0.1
    assert np.nanmax(x) <= 1.1


@pytest.mark.parametrize(
    ("one", "value", "share"),
    [
        (knob(float=[1.0, 3.0]), 2.0, 0.5),
        (knob(float=[1e-4, 1e-2], log=True), 1e-3, 0.5),
        (knob(int=[2, 2]), 2, 0.5),
        (knob(choice=[8, 2, 4]), 4, 0.5),
        (knob(choice=["a", None, True]), None, 0.5),
        (knob(choice=["a", "b"]), "b", 1.0),
    ],
)
def test_a_value_has_its_place(one, value, share):
    assert math.isclose(one.share(one.position(value)), share)


def test_values_that_a_scale_does_not_have_have_no_place(new_story, read):
    """The first trials of `search.start` may be outside the space."""
    story = new_story()
    for number, rate in enumerate([0, 1e-3, 1e-2]):
        story.trial(number, {"fusion.learning_rate": rate}, [0.1 * number])
    subject = read(story)
    chart = slice_chart(subject, knobs_of(subject))
    (panel,) = chart.panels
    assert np.isnan(panel.marks[0].x).sum() == 1


def test_a_few_poor_values_do_not_squeeze_an_axis():
    objective = Objective(metric="dev/accuracy")
    axis, caption = close_axis(objective, np.array([0.0, *np.linspace(80, 83, 40), np.nan]))
    assert axis.range is not None
    assert 75 < axis.range[0] < 80.5
    assert axis.range[1] > 83
    assert caption == " The axis leaves out 1 poorer point."
    assert close_axis(objective, np.linspace(80, 83, 40))[1] == ""
    assert close_axis(objective, np.array([]))[0].range is None
    loss, _ = close_axis(Objective(metric="dev/loss"), np.array([90.0, *np.linspace(1, 2, 40)]))
    assert loss.range is not None
    assert loss.range[0] < 1
    assert 2 < loss.range[1] < 3
