"""Who trained what when: the stages of a sweep on their hosts, as far as the ledger has it.

The ledger has what a stage took, and where, but not when it began: fusion ends with the trial's
last report, and the stages before it lie before its first. Stages of one host that overlap are in
lanes below each other, as on so many workers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from magtkd.pipeline import Outcome, StageRecord
from tune.ledger import TrialState
from tune.report.charts import Axis, Chart, Floats, Marks, Panel
from tune.report.palette import ACCENT, STAGES
from tune.report.progress import in_unit
from tune.report.subject import Subject
from tune.results import TRAINED

__all__ = ["Span", "lanes_of", "spans_of", "timeline_chart"]

MOST_SPANS, MOST_LANES, MOST_REUSES = 1500, 24, 1000
NUM_PARTS = 150
OVERLAP = 0.3
"""Seconds by which two spans may overlap on a worker: reconstructed times are not exact."""
READS = {
    "audio": ("teacher", "audio_media"),
    "video": ("teacher", "video_media"),
    "fusion": ("teacher", "audio", "video"),
}


@dataclass(frozen=True)
class Span:
    """The training of one stage: seconds in which a driver ran, from the sweep's first event."""

    stage: str
    trial: int
    host: str
    start: float
    end: float


def spans_of(subject: Subject) -> list[Span]:
    """The stages that were trained, in order of their start."""
    trials = subject.state.trials.values()
    spans = [span for trial in trials for span in _spans_of_trial(subject, trial)]
    return sorted(spans, key=lambda span: (span.start, span.end))


def _spans_of_trial(subject: Subject, trial: TrialState) -> list[Span]:
    """From the last stage back to the first: each ends where the first that reads it begins."""
    begun = subject.running(trial.suggested_time)
    last = max([trial.ended_time or 0, *(one.time for one in trial.reports), trial.suggested_time])
    first = min((one.time for one in trial.reports), default=last)
    starts: dict[str, float] = {}
    spans = []
    for stage in reversed(STAGES):
        record = trial.stages.get(stage)
        if record is None:
            continue
        readers = [starts[one] for one, read in READS.items() if stage in read and one in starts]
        if stage == "fusion":
            end = subject.running(last)
        else:
            end = min(readers, default=subject.running(first))
        seconds = record.seconds if record.outcome in TRAINED else 0.0
        starts[stage] = max(begun, end - seconds)
        if end > starts[stage] and stage != "data":
            spans.append(Span(stage, trial.number, _host(record), starts[stage], end))
    return spans


def _host(record: StageRecord) -> str:
    return record.host or "host not recorded"


def lanes_of(spans: Sequence[Span]) -> dict[str, list[list[Span]]]:
    """The spans of each host, in as few lanes as have them one after another."""
    hosts = defaultdict[str, list[list[Span]]](list)
    for span in spans:
        lanes = hosts[span.host]
        free = (lane for lane in lanes if lane[-1].end <= span.start + OVERLAP)
        # The one that was free last: what a worker does next is beside what it did.
        lane = max(free, key=lambda one: one[-1].end, default=None)
        if lane is None:
            lanes.append([span])
        else:
            lane.append(span)
    return dict(sorted(hosts.items()))


def timeline_chart(subject: Subject) -> Chart | None:
    """The stages by host and lane, reuses as marks, and how many stages were in training; None
    where nothing was trained."""
    spans = spans_of(subject)
    if not spans:
        return None
    lanes = [
        (f"{host}, lane {number}", lane)
        for host, lanes in lanes_of(spans).items()
        for number, lane in enumerate(lanes, start=1)
    ]
    longest = max(span.end for span in spans)
    divisor, unit = in_unit(longest)
    x = Axis(title=f"wall time [{unit}]", range=(0.0, longest / divisor))
    shown = lanes[:MOST_LANES]
    marks = _bars(shown, divisor) + _reuses(subject, len(shown), divisor)
    names = (*(name for name, _ in shown), "reused")
    upper = Panel(x=x, y=Axis(names=names), marks=tuple(marks))
    times, counts = _in_training(spans, longest)
    busy = sum(span.end - span.start for span in spans)
    share = busy / (len(lanes) * longest)
    lower = Panel(
        x=x,
        y=Axis(title="stages in training", range=(0.0, 1.1 * float(counts.max()))),
        marks=(Marks(kind="steps", x=times / divisor, y=counts, color=ACCENT),),
    )
    return Chart(
        name="timeline",
        title="Stages and workers",
        caption=_caption(share, len(lanes), len(spans)),
        panels=(upper, lower),
        width=900,
        height=max(220, 90 + 26 * len(names)),
    )


def _caption(share: float, num_lanes: int, num_spans: int) -> str:
    lanes = "one lane" if num_lanes == 1 else f"{num_lanes} lanes"
    caption = (
        f"Each bar is a stage in training, of those of one host that overlap each in a lane of its "
        f"own, and a gap is idle: {100 * share:.0f} % of {lanes} was training; diamonds are stages "
        "that were reused."
    )
    if num_lanes > MOST_LANES:
        caption += f" The first {MOST_LANES} of {num_lanes} lanes are drawn."
    if num_spans > MOST_SPANS:
        caption += f" Of {num_spans:,} bars, the {MOST_SPANS:,} longest are drawn."
    return f"{caption} When a stage began is reconstructed from what it took."


def _bars(lanes: Sequence[tuple[str, list[Span]]], divisor: float) -> list[Marks]:
    placed = [(row, span) for row, (_, lane) in enumerate(lanes) for span in lane]
    placed.sort(key=lambda one: one[1].start - one[1].end)
    of_stage = defaultdict[str, list[tuple[int, Span]]](list)
    for row, span in placed[:MOST_SPANS]:
        of_stage[span.stage].append((row, span))
    marks = []
    for stage in STAGES:
        found = of_stage.get(stage, [])
        if not found:
            continue
        ends = [(span.start / divisor, span.end / divisor, np.nan) for _, span in found]
        rows = [(row, row, np.nan) for row, _ in found]
        words = [f"{stage} of trial {one.trial}: {one.end - one.start:.3g} s" for _, one in found]
        marks.append(
            Marks(
                kind="line",
                x=np.array(ends).ravel(),
                y=np.array(rows, np.float64).ravel(),
                name=stage,
                color=STAGES[stage],
                size=13,
                labels=tuple(word for one in words for word in (one, one, "")),
            )
        )
    return marks


def _reuses(subject: Subject, row: int, divisor: float) -> list[Marks]:
    found = defaultdict[str, list[tuple[float, int]]](list)
    for trial in subject.state.trials.values():
        for stage, record in trial.stages.items():
            if record.outcome == Outcome.REUSED and stage != "data":
                at = subject.running(trial.suggested_time)
                found[stage].append((at / divisor, trial.number))
    marks = []
    stages = [stage for stage in STAGES if found[stage]]
    for place, stage in enumerate(stages):
        step = -(-len(found[stage]) // (MOST_REUSES // len(stages)))
        drawn = found[stage][::step]
        shift = 0.6 * (place + 0.5) / len(stages) - 0.3
        marks.append(
            Marks(
                kind="points",
                x=np.array([at for at, _ in drawn]),
                y=np.full(len(drawn), row + shift),
                color=STAGES[stage],
                shape="diamond",
                size=4,
                labels=tuple(f"trial {number} reused {stage}" for _, number in drawn),
            )
        )
    return marks


def _in_training(spans: Sequence[Span], longest: float) -> tuple[Floats, Floats]:
    """The beginnings of equal parts of the time, and how many stages were in training in each, on
    average."""
    edges = np.linspace(0, longest, NUM_PARTS + 1)
    done = np.zeros(len(edges))  # seconds of training up to each edge
    for span in spans:
        done += np.clip(edges - span.start, 0, span.end - span.start)
    mean = np.diff(done) / np.diff(edges)
    return edges, np.append(mean, mean[-1])
