"""Several sweeps side by side: best so far on one axis, and what each chose."""

from __future__ import annotations

from collections.abc import Sequence

from tune.report.blocks import Figure, Part, Section, Table
from tune.report.charts import Axis, Chart, Panel
from tune.report.palette import emotion
from tune.report.progress import best_line, in_unit, progress_of
from tune.report.subject import Subject, as_shown, metric_title
from tune.results import short_value

__all__ = ["compared", "comparison_part"]


def comparison_part(subjects: Sequence[Subject]) -> Part:
    """Several sweeps on one axis, and what each chose."""
    rows = [_choice(subject) for subject in subjects]
    names = dict.fromkeys(name for subject in subjects for name in _values(subject))
    values = [
        (
            name,
            *(short_value(_values(one)[name]) if name in _values(one) else "" for one in subjects),
        )
        for name in names
    ]
    choices = Table(
        ("sweep", "objective", "best on dev", "trial", "epoch", "trials ended", "stage-seconds"),
        rows,
        "The best trial of each sweep, as magtkd best selects it.",
    )
    beside = Table(
        ("searched", *(one.name for one in subjects)), values, "The values of each choice."
    )
    return Part(
        title=f"{len(subjects)} sweeps compared",
        subtitle=", ".join(subject.name for subject in subjects),
        sections=[Section("Side by side", [Figure(compared(subjects)), choices, beside])],
    )


def _values(subject: Subject) -> dict[str, str | int | float | bool | None]:
    return {} if subject.chosen is None else subject.chosen.candidate.current


def _choice(subject: Subject) -> tuple[str, ...]:
    chosen, found = subject.chosen, progress_of(subject)
    spent = f"{found.spent[-1]:,.0f}" if len(found.spent) else "0"
    tail = (f"{len(found.numbers):,}", spent)
    title = metric_title(subject.metric)
    if chosen is None:
        return (subject.name, title, "none completed", "", "", *tail)
    score = f"{as_shown(subject.metric, chosen.score):.4g}"
    return (subject.name, title, score, str(chosen.number), str(chosen.epoch or ""), *tail)


def compared(subjects: Sequence[Subject]) -> Chart:
    """The best so far of several sweeps against compute, on one axis."""
    every = [progress_of(subject) for subject in subjects]
    compute, of = in_unit(max((one.spent[-1] for one in every if len(one.spent)), default=0.0))
    marks = tuple(
        best_line(one.best, one.spent / compute, subject.name, emotion(place)[0])
        for place, (subject, one) in enumerate(zip(subjects, every, strict=True))
    )
    metric = subjects[0].metric
    same = all(subject.metric == metric for subject in subjects)
    caption = (
        "At equal compute, the higher line is the better search"
        if same
        else ("The sweeps have different objectives, so the heights of their lines do not compare")
    )
    if same and metric.endswith("/loss"):
        caption = "At equal compute, the lower line is the better search"
    y = Axis(title=metric_title(metric) if same else "each sweep's objective")
    return Chart(
        name="compared",
        title="Best so far against compute",
        caption=f"{caption}; compute is what training took, of all stages together.",
        panels=(Panel(x=Axis(title=f"compute [stage-{of}]"), y=y, marks=marks),),
        width=600,
        height=400,
    )
