"""Who trained what when, as far as the ledger has it."""

import itertools

import pytest

from magtkd.pipeline import StageRecord
from tune.report.timeline import OVERLAP, lanes_of, spans_of, timeline_chart


def record(key, seconds, host="h1", outcome="trained"):
    return StageRecord(key, outcome, seconds, host=host)


@pytest.fixture
def story(new_story):
    story = new_story()
    for number in range(6):
        story.trial(
            number,
            {},
            [0.5, 0.6, 0.7, 0.8],
            teacher=record("t", 0.8, outcome="trained" if not number else "reused"),
            audio=record(f"a{number}", 0.5),
            video=record(f"v{number}", 0.75),
            fusion=record(f"f{number}", 3.0, host=f"h{number % 2}"),
        )
    return story


def test_stages_lie_before_those_that_read_them(story, read):
    spans = spans_of(read(story))
    first = {span.stage: span for span in spans if span.trial == 0}
    assert first["teacher"].end <= min(first["audio"].start, first["video"].start)
    assert max(first["audio"].end, first["video"].end) <= first["fusion"].start
    assert all(span.end > span.start >= 0 for span in spans)
    assert [span.stage for span in spans].count("teacher") == 1


def test_a_stage_has_its_seconds_where_there_is_room(story, read):
    taken = {(span.trial, span.stage): span.end - span.start for span in spans_of(read(story))}
    assert taken[0, "fusion"] == pytest.approx(3.0)
    assert taken[3, "video"] == pytest.approx(0.75)


def test_lanes_hold_stages_one_after_another(story, read):
    lanes = lanes_of(spans_of(read(story)))
    assert list(lanes) == ["h0", "h1"]
    for lane in (lane for of_host in lanes.values() for lane in of_host):
        for one, other in itertools.pairwise(lane):
            assert other.start >= one.end - OVERLAP


def test_the_chart_names_hosts_and_reuses(story, read):
    chart = timeline_chart(read(story))
    assert chart is not None
    upper, lower = chart.panels
    assert upper.y.names[0] == "h0, lane 1"
    assert upper.y.names[-1] == "reused"
    diamonds = [marks for marks in upper.marks if marks.shape == "diamond"]
    assert sum(len(marks.x) for marks in diamonds) == 5
    # The mean number of stages in training times the time is what they took.
    counts = lower.marks[0]
    busy = sum(span.end - span.start for span in spans_of(read(story)))
    area = ((counts.x[1:] - counts.x[:-1]) * counts.y[:-1]).sum()
    assert area == pytest.approx(busy)


def test_without_training_there_is_no_timeline(new_story, read):
    story = new_story()
    story.trial(0, {}, [0.5], fusion=record("f", 0.0, outcome="reused"))
    assert timeline_chart(read(story)) is None
