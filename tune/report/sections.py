"""The parts of a page: one for each sweep, and before them one that compares several."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from magtkd.config import get_value
from magtkd.errors import ArtifactError, StorageLostError
from magtkd.metrics import classification_metrics
from tune.ledger import TrialState, TrialStatus
from tune.report.asked import asked_section, default_of, space_words
from tune.report.blocks import Block, Excerpts, Figure, Notes, Part, Section, Table
from tune.report.chosen import (
    Dev,
    calibration_chart,
    confident_errors,
    confusion_chart,
    feature_chart,
    per_class_chart,
    read_dev,
)
from tune.report.confirmation import Confirmation, confirmation_section
from tune.report.findings import findings
from tune.report.knobs import (
    Knob,
    importance_chart,
    importances,
    knobs_of,
    pair_charts,
    parallel_chart,
    slice_chart,
)
from tune.report.learning import learning_chart, trial_chart
from tune.report.pareto import pareto_chart
from tune.report.progress import compared, progress_chart, progress_of
from tune.report.subject import Subject, as_shown, metric_title
from tune.report.timeline import timeline_chart
from tune.results import (
    best,
    device_cost,
    duration,
    short_value,
    sweep_cost,
    table_columns,
)
from tune.tracking import sweep_headline

__all__ = ["comparison_part", "sweep_part"]

NUM_LISTED = 15
MOST_SLICES = 12


def sweep_part(subject: Subject, confirmation: Confirmation | None = None) -> Part:
    """All of a page about one sweep.

    Args:
        subject: the sweep.
        confirmation: its best trials on fresh seeds, where they were confirmed.
    """
    knobs, shares = knobs_of(subject), importances(subject)
    order = {name: place for place, name in enumerate(shares)}
    knobs = sorted(knobs, key=lambda knob: order.get(knob.name, len(order)))
    dev, missing = _dev(subject)
    sections = [
        Section("What to read from it", [Notes(findings(subject, knobs, dev))]),
        _progress(subject),
        _search(subject, knobs, shares),
        _chosen(subject, dev, missing),
        None if confirmation is None else confirmation_section(confirmation),
        _work(subject),
        asked_section(subject),
    ]
    return Part(
        title=f"Sweep {subject.name}",
        subtitle=_subtitle(subject),
        tiles=_tiles(subject),
        sections=[one for one in sections if one is not None and _is_filled(one)],
    )


def _is_filled(section: Section) -> bool:
    return any(not isinstance(block, Notes) or block.lines for block in section.blocks)


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


# --- head -------------------------------------------------------------------------------------


def _subtitle(subject: Subject) -> str:
    status = subject.status
    opened = datetime.fromtimestamp(status.opened / 1000)
    ended = datetime.fromtimestamp((status.closed or status.last_event) / 1000)
    how = "last event" if status.state == "running" else status.state
    line = f"begun {opened:%Y-%m-%d %H:%M}, {how} {ended:%Y-%m-%d %H:%M}"
    if status.state == "running":
        line = f"running, {line}"
    line += f"; ended by {status.why}" if status.why else ""
    return f"{sweep_headline(subject.state)}; {line}"


def _tiles(subject: Subject) -> list[tuple[str, str]]:
    chosen, found = subject.chosen, progress_of(subject)
    tiles = []
    if chosen is not None:
        shown = f"{as_shown(subject.metric, chosen.score):.4g}"
        tiles.append((f"best {metric_title(subject.metric)}, trial {chosen.number}", shown))
        if chosen.test is not None and chosen.test.weighted_f1 is not None:
            tiles.append(
                ("test weighted F1 [points], revealed", f"{100 * chosen.test.weighted_f1:.4g}")
            )
    counts = subject.state.count()
    named = {one: str(one) for one in TrialStatus if one != TrialStatus.COMPLETED}
    if subject.status.state != "running":
        named[TrialStatus.RUNNING] = "unfinished"
    others = [f"{counts[one]:,} {name}" for one, name in named.items() if counts[one]]
    tiles.append((", ".join(["trials completed", *others]), f"{len(subject.ranked):,}"))
    if len(found.numbers):
        tiles.append(("wall time [h:mm:ss]", duration(float(found.wall[-1]))))
        tiles.append(("compute [stage-h:mm:ss]", duration(float(found.spent[-1]))))
        if found.saved[-1]:
            tiles.append(("saved by reuse [stage-h:mm:ss]", duration(float(found.saved[-1]))))
    return tiles


# --- sections ---------------------------------------------------------------------------------


def _progress(subject: Subject) -> Section:
    blocks: list[Block] = []
    if subject.ranked:
        if len(subject.state.objectives) > 1:
            blocks.append(Figure(pareto_chart(subject)))
        blocks.append(Figure(progress_chart(subject)))
    learning = learning_chart(subject)
    if learning is not None:
        blocks.append(Figure(learning))
    if subject.ranked:
        columns = table_columns(best(subject.state, NUM_LISTED))
        rows = list(zip(*columns.values(), strict=True))
        blocks.append(Table(tuple(columns), rows, "The best trials, as magtkd best lists them."))
    return Section("How it went", blocks)


def _search(subject: Subject, knobs: Sequence[Knob], shares: dict[str, float]) -> Section:
    blocks: list[Block] = []
    if not knobs or len(subject.ranked) < 2:
        return Section("What mattered", blocks)
    if shares:
        blocks.append(Figure(importance_chart(subject, shares)))
    blocks.append(Figure(slice_chart(subject, knobs[:MOST_SLICES])))
    blocks += [Figure(chart) for chart in pair_charts(subject, knobs)]
    blocks.append(Figure(parallel_chart(subject, knobs)))
    return Section("What mattered", blocks)


def _dev(subject: Subject) -> tuple[Dev | None, str]:
    """The chosen trial on dev; None, and why, where its artifacts are not here."""
    trial = subject.chosen
    if trial is None or not {"data", "fusion"} <= trial.stages.keys():
        return None, ""
    try:
        return read_dev(trial, subject.store), ""
    except (ArtifactError, StorageLostError) as error:
        return None, error.reason


def _chosen(subject: Subject, dev: Dev | None, missing: str) -> Section | None:
    trial = subject.chosen
    if trial is None:
        return None
    blocks: list[Block] = [_value_table(subject, trial)]
    if trial.reports:
        blocks.append(Figure(trial_chart(trial, subject.metric)))
    if dev is not None:
        blocks += _dev_blocks(dev)
    elif missing:
        line = f"What it predicts is not shown, as its artifacts are not here: {missing}."
        blocks.append(Notes([line]))
    if trial.test is not None:
        blocks.append(_test_table(trial))
    return Section(f"The chosen trial: {trial.number}", blocks)


def _dev_blocks(dev: Dev) -> list[Block]:
    if not (dev.label >= 0).any():
        return [Notes(["No utterance of dev has a label, so that nothing can be scored on it."])]
    scores = classification_metrics(*dev.scored, dev.labels)["per_class"]
    rows = [
        (
            name,
            *(f"{100 * one[score]:.2f}" for score in ("f1", "precision", "recall")),
            str(one["support"]),
        )
        for name, one in scores.items()
    ]
    header = ("label", "dev F1 [points]", "precision [points]", "recall [points]", "utterances")
    blocks: list[Block] = [
        Figure(per_class_chart(dev)),
        Figure(confusion_chart(dev)),
        Figure(calibration_chart(dev)),
    ]
    features = feature_chart(dev)
    if features is not None:
        blocks.append(Figure(features))
    blocks.append(Table(header, rows))
    if errors := confident_errors(dev):
        caption = "The errors on dev of which the model was surest, and what was said around them."
        blocks.append(Excerpts(errors, caption))
    return blocks


def _value_table(subject: Subject, trial: TrialState) -> Table:
    knobs = {knob.name: knob for knob in knobs_of(subject)}
    base = subject.state.sweep.base
    rows = []
    for name, value in trial.candidate.current.items():
        given = get_value(base, name)
        rows.append(
            (
                name,
                short_value(value),
                short_value(given) if not hasattr(given, "model_dump") else "a section",
                default_of(name),
                space_words(knobs[name]) if name in knobs else "tied",
            )
        )
    header = ("name", "chosen", "in the sweep's file", "magtkd's default", "searched over")
    return Table(header, rows, "The chosen values beside those that one would have had unsearched.")


def _test_table(trial: TrialState) -> Table:
    assert trial.test is not None
    rows = [
        ("weighted F1", _percent(trial.test.weighted_f1)),
        ("accuracy", _percent(trial.test.accuracy)),
        ("macro F1", _percent(trial.test.macro_f1)),
        *((f"F1 of {label}", _percent(one)) for label, one in trial.test.per_class.items()),
    ]
    return Table(("test, revealed", "points"), rows, "Revealed for this trial; see the ledger.")


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}"


def _work(subject: Subject) -> Section:
    blocks: list[Block] = []
    timeline = timeline_chart(subject)
    if timeline is not None:
        blocks.append(Figure(timeline))
    costs = sweep_cost(subject.state)
    if costs:
        rows = [
            (
                stage,
                f"{one.num_trained:,}",
                f"{one.num_stopped:,}",
                f"{one.num_reused:,}",
                f"{one.seconds_trained:,.1f}",
                f"{one.seconds_saved:,.1f}",
            )
            for stage, one in costs.items()
        ]
        header = ("stage", "trained", "stopped", "reused", "seconds", "seconds saved by reuse")
        blocks.append(Table(header, rows))
    devices = [
        (name, f"{one.hours_trained:.3g}", f"{one.hours_saved:.3g}")
        for name, one in sorted(device_cost(subject.state).items())
    ]
    if devices:
        blocks.append(Table(("device", "hours spent", "hours saved by reuse"), devices))
    failures = [
        (str(group.state), str(len(group.trials)), group.message)
        for group in subject.status.failures[:NUM_LISTED]
    ]
    if failures:
        blocks.append(Table(("ended as", "trials", "message"), failures))
    if subject.status.warnings:
        lines = [f"Warning: {line}" for line in subject.status.warnings[:NUM_LISTED]]
        blocks.append(Notes(lines))
    return Section("Who trained what when", blocks)
