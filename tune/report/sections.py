"""The part of a page about one sweep: its head, and its sections in order."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from tune.ledger import TrialStatus
from tune.report.asked import asked_section
from tune.report.blocks import Block, Figure, Notes, Part, Section, Table
from tune.report.chosen_section import chosen_section, dev_of
from tune.report.confirmation import confirmation_section
from tune.report.findings import findings
from tune.report.importance import importance_chart, importances
from tune.report.knob import Knob, knobs_of
from tune.report.knobs import pair_charts, parallel_chart, slice_chart
from tune.report.learning import early_chart, learning_chart
from tune.report.pareto import pareto_chart
from tune.report.progress import progress_chart, progress_of
from tune.report.subject import Subject, as_shown, metric_title
from tune.report.timeline import timeline_chart
from tune.results import best, device_cost, duration, sweep_cost, table_columns
from tune.tracking import sweep_headline

__all__ = ["sweep_part"]

NUM_LISTED = 15
MOST_SLICES = 12


def sweep_part(subject: Subject) -> Part:
    """All of a page about one sweep.

    Args:
        subject: the sweep.
    """
    knobs, shares = knobs_of(subject), importances(subject)
    order = {name: place for place, name in enumerate(shares)}
    knobs = sorted(knobs, key=lambda knob: order.get(knob.name, len(order)))
    dev, missing = dev_of(subject)
    confirmation = subject.confirmation
    sections = [
        Section("What to read from it", [Notes(findings(subject, knobs, dev))]),
        _progress(subject),
        _search(subject, knobs, shares),
        chosen_section(subject, dev, missing),
        None if confirmation is None else confirmation_section(confirmation, subject.store),
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
        confirmation = subject.confirmation
        if confirmation is None:
            tiles.append((f"best {metric_title(subject.metric)}, trial {chosen.number}", shown))
        else:
            mean = f"{as_shown(subject.metric, confirmation.row.mean):.4g}"
            seeds = len(confirmation.seeds)
            title = (
                f"{metric_title(subject.metric)}, trial {chosen.number}, mean over {seeds} seeds"
            )
            tiles += [(title, mean), ("the same in the sweep", shown)]
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
    early = early_chart(subject)
    if early is not None:
        blocks.append(Figure(early))
    if subject.front:
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
