"""A sweep's status as text for people."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from tune.results.display import duration
from tune.results.status import Status

__all__ = ["print_status"]

STALE_SECONDS = 15.0
MAX_SHOWN = 10


def print_status(status: Status, console: Console) -> None:
    """Print what `sweep_status` gave, with `mlflow_status` under `mlflow`."""
    parts: list[Text | Table] = [Text(_headline(status), style="bold"), Text(_counts(status))]
    if status["workers"] or status["engine"]:
        parts.append(Text(_workers(status)))
    if status["trials"]:
        parts.append(_trial_table(status))
    parts += [Text(line) for line in _failure_lines(status)]
    parts += [Text(f"warning: {warning}") for warning in status["warnings"]]
    if "mlflow" in status:
        parts.append(Text(_mlflow_line(status)))
    if status["resume"]:
        parts.append(Text(f"go on with: {status['resume']}", style="bold"))
    console.print(Group(*parts), highlight=False, soft_wrap=True)


def _headline(status: Status) -> str:
    opened, resumed = status["opened"], status["num_resumed"]
    times = {0: "", 1: ", resumed once"}.get(resumed, f", resumed {resumed} times")
    if status["state"] == "running":
        passed = duration(time.time() - opened / 1000)
        return (
            f"sweep {status['sweep']}: running since {_clock(opened)} ({passed}){times}, "
            f"by {status['process']}"
        )
    ended = status["closed"] or status["last_event"]
    how = {"killed": "killed after"}.get(status["state"], f"{status['state']} at")
    return f"sweep {status['sweep']}: {how} {_clock(ended)}, begun at {_clock(opened)}{times}"


def _clock(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000).strftime("%Y-%m-%d %H:%M:%S")


def _counts(status: Status) -> str:
    counts: Mapping[str, int] = status["counts"]
    ended = sum(number for name, number in counts.items() if name != "running")
    total = "" if status["num_trials"] is None else f"/{status['num_trials']}"
    unended = "running" if status["state"] == "running" else "without an end"
    parts = [
        f"{number} {unended if name == 'running' else name}" for name, number in counts.items()
    ]
    return ", ".join([f"{ended}{total} trials ended", *parts])


def _workers(status: Status) -> str:
    parts = [f"{number} {name}" for name, number in status["workers"].items() if number]
    told = [f"workers: {', '.join(parts) or 'none'}"]
    if status["engine"]:
        told.append(f"engine: {status['engine']}")
    if status["age"] is not None and status["age"] > STALE_SECONDS:
        told.append(f"as of {duration(status['age'])} ago: the driver has said nothing since")
    return "; ".join(told)


def _trial_table(status: Status) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("trial", justify="right")
    table.add_column("epoch", justify="right")
    table.add_column(str(status["trials"][0]["metric"]), justify="right")
    table.add_column(
        "now" if any(trial["now"] for trial in status["trials"]) else "stages", overflow="fold"
    )
    for trial in status["trials"]:
        epoch = "" if trial["epoch"] is None else str(trial["epoch"])
        of = f"/{trial['num_epochs']}" if epoch and trial["num_epochs"] else ""
        value = "" if trial["value"] is None else f"{trial['value']:.4f}"
        known = ", ".join(f"{stage} {outcome}" for stage, outcome in trial["stages"].items())
        now = trial["now"] or known or "no stage is known yet"
        table.add_row(str(trial["trial"]), epoch + of, value, Text(now))
    return table


def _failure_lines(status: Status) -> list[str]:
    failures = status["failures"]
    lines = [
        f"{group['state']}: {_trials(group['trials'])}: {group['message']}"
        for group in failures[:MAX_SHOWN]
    ]
    if len(failures) > MAX_SHOWN:
        rest = sum(len(group["trials"]) for group in failures[MAX_SHOWN:])
        lines.append(f"and {rest} more with other messages; --json has them all")
    return lines


def _trials(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:MAX_SHOWN]))
    if len(numbers) > MAX_SHOWN:
        shown += f" and {len(numbers) - MAX_SHOWN} more"
    return f"trial{'s' if len(numbers) > 1 else ''} {shown}"


def _mlflow_line(status: Status) -> str:
    mlflow, command = status["mlflow"], status["sync"]
    if mlflow["state"] == "unreachable":
        return f"MLflow: cannot be reached: {mlflow['reason']}"
    if mlflow["state"] == "not recorded":
        return f"MLflow: not recorded; to do so: {command}"
    if mlflow["state"] == "up to date":
        return "MLflow: up to date"
    number = mlflow["num_events"]
    lacks = f"MLflow: lacks {number} event{'s' if number > 1 else ''}"
    if status["state"] == "running":
        return f"{lacks}, which the driver sends when it can"
    return f"{lacks}; {command}"
