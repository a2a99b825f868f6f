"""A preview as lines for people: fewer than twenty, whatever the sweep."""

from __future__ import annotations

from tune.config import SweepConfig
from tune.driver.preview import Preview
from tune.results import Seconds

__all__ = ["preview_lines"]

MOST_LINES = 19
DATA = "data"


def preview_lines(sweep: SweepConfig, preview: Preview, *, whole: bool = False) -> list[str]:
    """What a sweep would do: trials, stages, and what these are expected to take.

    Args:
        sweep: the sweep.
        preview: what was found out.
        whole: all lines, however many.
    """
    lines = [_headline(sweep, preview), *(_stage_line(preview, stage) for stage in preview.stages)]
    lines += _total_lines(preview)
    more = [*preview.hints, *preview.notes]
    room = MOST_LINES - len(lines)
    if whole or len(more) <= room:
        return lines + more
    left = len(more) - room + 1
    return [*lines, *more[: room - 1], f"and {left} more lines; --verbose has them"]


def _headline(sweep: SweepConfig, preview: Preview) -> str:
    budget = sweep.search.budget
    hours = {"h": budget.hours, "h of training": budget.stage_hours}
    allowed = " or ".join(f"{limit:g} {unit}" for unit, limit in hours.items() if limit is not None)
    number, points = preview.num_trials, preview.num_configurations
    trials = "as many trials as end" if number is None else _counted(number, "trial")
    within = f" within {allowed}" if allowed else ""
    found = "unbounded (continuous range)" if points is None else str(points)
    return (
        f"sweep {sweep.name}: {trials}{within}, {sweep.search.max_concurrent} at a time, by "
        f"{sweep.search.sampler}; distinct configurations: {found}"
    )


def _stage_line(preview: Preview, stage: str) -> str:
    count, number = preview.stages[stage], preview.to_train(stage)
    least = "" if preview.is_whole else "at least "
    if count.distinct is None:
        line = f"{stage}: unbounded (continuous range)"
    else:
        line = f"{stage}: {least}{count.distinct} distinct, {least}{count.existing} exist"
    if number == 0 or stage == DATA:
        return line
    line += "; one for each trial" if number is None else f"; trains at most {number}"
    expected = preview.seconds.get(stage)
    if expected is None:
        return line
    line += f", {_range(expected)} each"
    return line if number in {None, 1} else f"{line}, {_range(expected.times(number or 0))} in all"


def _total_lines(preview: Preview) -> list[str]:
    wanted = [one for one in preview.stages if one != DATA and preview.to_train(one) != 0]
    unknown = [stage for stage in wanted if stage not in preview.seconds]
    lines = []
    total, passed = preview.total, preview.passed
    if total is not None and passed is not None and len(unknown) < len(wanted):
        most = max(preview.workers.get(stage, 1) for stage in wanted)
        lines.append(
            f"in all: at most {_range(total)} of training, {_range(passed)} on "
            f"{_counted(most, 'worker')}"
        )
    if unknown:
        lines.append(
            f"how long training takes is not known of {', '.join(unknown)}: no sweep in this "
            "storage has trained that on these data"
        )
    return lines


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _range(seconds: Seconds) -> str:
    """The mean, and the range where there is one."""
    mean, low, high = map(_about, (seconds.mean, seconds.low, seconds.high))
    return mean if low == high else f"{mean} ({low} to {high})"


def _about(seconds: float) -> str:
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
