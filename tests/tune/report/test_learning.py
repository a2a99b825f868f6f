"""Learning curves, and how early they order the trials."""

import numpy as np
import pytest

from tune.report.learning import early_chart, learning_chart, trial_chart


@pytest.fixture
def story(new_story):
    """Twelve trials whose scores are in the opposite order at epoch 1, in the final one at 3."""
    story = new_story()
    for number in range(12):
        level = 0.03 * number
        story.trial(number, {"fusion.depth": 1}, [0.3 - level / 2, 0.4, 0.5 + level])
    story.trial(12, {"fusion.depth": 1}, [0.1], state="stopped")
    story.trial(13, {"fusion.depth": 1}, [None], state="diverged")
    return story


def test_the_order_is_compared_epoch_by_epoch(story, read):
    chart = early_chart(read(story))
    (marks,) = chart.panels[0].marks
    assert marks.x.tolist() == [1, 3]  # all are equal at 2
    assert np.allclose(marks.y, [-1, 1])


def test_a_few_trials_have_no_order(new_story, read):
    story = new_story()
    for number in range(5):
        story.trial(number, {"fusion.depth": 1}, [0.1 * number, 0.2 * number])
    assert early_chart(read(story)) is None


def test_each_trial_is_a_line_of_its_state(story, read):
    (panel,) = learning_chart(read(story)).panels
    lines = {marks.name: int(np.isnan(marks.x).sum()) + 1 for marks in panel.marks}
    assert lines == {"stopped": 1, "completed": 12, "diverged": 1, "trial 11, the chosen one": 1}
    stopped, completed = panel.marks[:2]
    assert stopped.opacity < completed.opacity


def test_many_curves_are_thinned_and_the_best_stay(new_story, read, monkeypatch):
    monkeypatch.setattr("tune.report.learning.MOST_CURVES", 10)
    monkeypatch.setattr("tune.report.learning.BEST_KEPT", 3)
    story = new_story()
    for number in range(40):
        story.trial(number, {"fusion.depth": 1}, [0.01 * number, 0.015 * number])
    chart = learning_chart(read(story))
    completed, best = chart.panels[0].marks
    assert np.isnan(completed.x).sum() + 1 == 10
    assert {1.5 * 39, 1.5 * 38, 1.5 * 37} <= set(np.round(completed.y, 6))
    assert best.y.tolist() == [39.0, 58.5]
    assert "Of 40 curves, 10 are drawn: the best 3" in chart.caption


def test_the_kept_epoch_is_ringed(story, read):
    subject = read(story)
    losses, scores = trial_chart(subject.chosen, subject.metric).panels
    assert [marks.name for marks in losses.marks] == ["train", "dev"]
    ring = scores.marks[1]
    assert (ring.x.tolist(), ring.name) == ([3], "epoch 3, kept")
