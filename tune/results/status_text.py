"""A sweep's status as text for people."""

from __future__ import annotations

import time
from datetime import datetime

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from magtkd.errors import and_more
from tune.ledger import TrialStatus
from tune.results.display import duration, node_line
from tune.results.formats import metric_header, shown_score
from tune.results.status import (
    KILLED,
    RUNNING,
    FailureGroup,
    MlflowState,
    MlflowStatus,
    RunningTrial,
    Status,
)

__all__ = ["print_status"]

STALE_SECONDS = 15.0
MAX_SHOWN = 10


def print_status(status: Status, console: Console) -> None:
    """Print what `sweep_status` gave, with what MLflow lacks where that was asked."""
    parts: list[Text | Table] = [Text(_headline(status), style="bold"), Text(_counts(status))]
    if status.why:
        parts.append(Text(f"ended by {status.why}"))
    if status.workers or status.engine:
        parts.append(Text(_workers(status)))
    parts += [Text(f"node {node_line(node)}") for node in status.nodes[:MAX_SHOWN]]
    if len(status.nodes) > MAX_SHOWN:
        parts.append(Text(f"and {len(status.nodes) - MAX_SHOWN} more nodes; --json has them all"))
    parts += [Text(line) for line in status.wanted]
    if status.trials:
        parts.append(_trial_table(status.trials, is_running=status.state == RUNNING))
    parts += [Text(line) for line in _failure_lines(status.failures)]
    parts += [Text(f"warning: {warning}") for warning in status.warnings]
    if status.confirmation is not None:
        parts.append(Text(f"confirmation: {status.confirmation}"))
    if status.mlflow is not None:
        parts.append(Text(_mlflow_line(status, status.mlflow)))
    if status.resume:
        parts.append(Text(f"to resume: {status.resume}", style="bold"))
    console.print(Group(*parts), highlight=False, soft_wrap=True)


def _headline(status: Status) -> str:
    opened, resumed = status.opened, status.num_resumed
    times = {0: "", 1: ", resumed once"}.get(resumed, f", resumed {resumed} times")
    if status.state == RUNNING:
        passed = duration(time.time() - opened / 1000)
        return (
            f"sweep {status.sweep}: running since {_clock(opened)} ({passed}){times}, "
            f"by {status.process}"
        )
    ended = status.closed or status.last_event
    how = "killed after" if status.state == KILLED else f"{status.state} at"
    return f"sweep {status.sweep}: {how} {_clock(ended)}, started at {_clock(opened)}{times}"


def _clock(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000).strftime("%Y-%m-%d %H:%M:%S")


def _counts(status: Status) -> str:
    ended = sum(number for one, number in status.counts.items() if one != TrialStatus.RUNNING)
    total = "" if status.num_trials is None else f"/{status.num_trials}"
    unended = "running" if status.state == RUNNING else "unfinished"
    parts = [
        f"{number} {unended if one == TrialStatus.RUNNING else one}"
        for one, number in status.counts.items()
    ]
    return ", ".join([f"{ended}{total} trials ended", *parts])


def _workers(status: Status) -> str:
    parts = [f"{number} {name}" for name, number in status.workers.items() if number]
    lines = [f"workers: {', '.join(parts) or 'none'}"]
    if status.engine:
        lines.append(f"engine: {status.engine}")
    if status.age is not None and status.age > STALE_SECONDS:
        lines.append(f"as of {duration(status.age)} ago: no update from the driver since")
    return "; ".join(lines)


def _trial_table(trials: list[RunningTrial], *, is_running: bool) -> Table:
    # A trial's stages are recorded with its first epoch.
    nothing = "has not reported yet" if is_running else "no epoch yet; finished stages are kept"
    table = Table(box=None, pad_edge=False)
    table.add_column("trial", justify="right")
    table.add_column("epoch", justify="right")
    table.add_column(metric_header(trials[0].metric), justify="right")
    table.add_column("now" if any(trial.now for trial in trials) else "stages", overflow="fold")
    for trial in trials:
        epoch = "" if trial.epoch is None else str(trial.epoch)
        of = f"/{trial.num_epochs}" if epoch and trial.num_epochs else ""
        value = shown_score(trial.metric, trial.value)
        known = ", ".join(f"{stage} {outcome}" for stage, outcome in trial.stages.items())
        now = trial.now or known or nothing
        if trial.now and trial.last_report is not None:
            age = time.time() - trial.last_report / 1000
            now += f", last epoch {duration(age)} ago" if age > STALE_SECONDS else ""
        table.add_row(str(trial.trial), epoch + of, value, Text(now))
    return table


def _failure_lines(failures: list[FailureGroup]) -> list[str]:
    lines = [
        f"{group.state}: {_trials(group.trials)}: {group.message}" for group in failures[:MAX_SHOWN]
    ]
    if len(failures) > MAX_SHOWN:
        rest = sum(len(group.trials) for group in failures[MAX_SHOWN:])
        lines.append(f"and {rest} more with other messages; --json has them all")
    return lines


def _trials(numbers: list[int]) -> str:
    return f"trial{'s' if len(numbers) > 1 else ''} {and_more(map(str, numbers), MAX_SHOWN)}"


def _mlflow_line(status: Status, mlflow: MlflowStatus) -> str:
    match mlflow.state:
        case MlflowState.UNREACHABLE:
            return f"MLflow: cannot be reached: {mlflow.reason}"
        case MlflowState.REFUSED:
            return f"MLflow: cannot be used: {mlflow.reason}"
        case MlflowState.NOT_RECORDED:
            return f"MLflow: not recorded; to record it: {status.sync}"
        case MlflowState.UP_TO_DATE:
            return "MLflow: up to date"
    number = mlflow.num_events
    lacks = f"MLflow: lacks {number} event{'' if number == 1 else 's'}"
    if status.state == RUNNING:
        return f"{lacks}, which the driver sends when it can"
    return f"{lacks}; {status.sync}"
