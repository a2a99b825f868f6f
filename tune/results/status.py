"""What a sweep is doing: what runs, what waits for what, what failed, and what MLflow lacks.

The ledger is the truth. The lock says whether a driver is alive, and `live.json`, which the driver
replaces every few seconds, what each trial does now; without it, there is what the ledger knows.
"""

from __future__ import annotations

import json
import math
import shlex
import time
from pathlib import Path
from typing import Any

from magtkd.errors import StorageError
from magtkd.store.locks import is_locked
from tune.ledger.file import read_sweep
from tune.ledger.layout import LIVE_FILE
from tune.ledger.state import SweepState, TrialState
from tune.tracking.addresses import redact

__all__ = ["Status", "driver_of", "mlflow_status", "sweep_status"]

STATES = ("running", "completed", "stopped", "diverged", "failed")

Status = dict[str, Any]


# --- is a driver alive? -----------------------------------------------------------------------


def driver_of(folder: Path) -> str | None:
    """The process that runs the sweep in a folder, in words; None where there is none."""
    lock = folder / "lock"
    if not is_locked(lock):
        return None
    return lock.read_text(encoding="utf-8", errors="replace")[:200] or "another process"


def _read_live(folder: Path, driver: str | None) -> dict[str, Any]:
    """What the driver that is alive said last; empty where it has not, or in other words."""
    try:
        live = json.loads((folder / LIVE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if driver is None or not isinstance(live, dict) or live.get("process", driver) != driver:
        return {}
    return {
        "age": _age(live.get("time")),
        "trials": _kept(live.get("trials"), str),
        "workers": _kept(live.get("workers"), int),
        "engine": live["engine"] if isinstance(live.get("engine"), str) else None,
    }


def _age(told: Any) -> float | None:
    if not isinstance(told, int | float) or not math.isfinite(told):
        return None
    return max(0.0, time.time() - told / 1000)


def _kept(value: Any, kind: type) -> dict[str, Any]:
    items = value.items() if isinstance(value, dict) else ()
    return {name: inner for name, inner in items if isinstance(inner, kind)}


# --- the status as plain values ---------------------------------------------------------------


def sweep_status(folder: Path, storage: str) -> Status:
    """What the ledger, the lock and `live.json` of a sweep's folder say, as plain values.

    `state` is `running`, `finished`, `interrupted`, or `killed` where the driver left without a
    word; times are in milliseconds, and `age` is that of what the trials are said to do, in
    seconds.

    Raises:
        SweepError: there is no such sweep, or its ledger is damaged.
    """
    # The lock first: a driver that ends in between has then said in the ledger how.
    driver = driver_of(folder)
    state = read_sweep(folder)
    live = _read_live(folder, driver)
    what = state.closed or ("running" if driver else "killed")
    return {
        "sweep": state.name,
        "state": what,
        "process": driver,
        "counts": {name: state.count()[name] for name in STATES if state.count()[name]},
        "num_trials": _num_trials(state),
        "opened": state.opened_time,
        "closed": state.closed_time,
        "last_event": _last_time(state),
        "num_resumed": state.num_resumed,
        "is_tracked": state.is_tracked,
        "engine": live.get("engine"),
        "workers": live.get("workers", {}),
        "age": live.get("age"),
        "trials": [
            _running(state, trial, live.get("trials", {}).get(str(trial.number)))
            for trial in state.trials.values()
            if trial.ended_time is None
        ],
        "failures": _failures(state),
        "warnings": list(getattr(state, "warnings", ())),
        "resume": None
        if driver or what == "finished"
        else _command("sweep --resume", state, storage),
        "sync": _command("sync", state, storage),
    }


def _num_trials(state: SweepState) -> int | None:
    """Trials that there will be; None for a grid, which may end before that."""
    search = state.config.get("search") or {}
    if state.closed == "finished":
        return len(state.trials)
    return None if search.get("sampler") == "grid" else search.get("num_trials")


def _last_time(state: SweepState) -> int:
    times = [state.opened_time, state.closed_time or 0]
    for trial in state.trials.values():
        times += [trial.suggested_time, trial.ended_time or 0]
        times += [report.time for report in trial.reports[-1:]]
    return max(times)


def _running(state: SweepState, trial: TrialState, now: str | None) -> Status:
    report = trial.reports[-1] if trial.reports else None
    metric = state.objectives[0].metric
    planned = (state.config.get("fusion") or {}).get("epochs")
    return {
        "trial": trial.number,
        "values": trial.values,
        "epoch": report.epoch if report else None,
        "num_epochs": trial.values.get("fusion.epochs", planned),
        "metric": metric,
        "value": report.metrics.get(metric) if report else None,
        "stages": {stage: record.outcome for stage, record in trial.stages.items()},
        "now": now,
    }


def _failures(state: SweepState) -> list[Status]:
    """Trials that failed or diverged, those with one message together, the most trials first."""
    groups: dict[tuple[str, str], list[int]] = {}
    for trial in state.trials.values():
        if trial.state in {"failed", "diverged"}:
            message = redact(" ".join((trial.message or "no message").split()))
            groups.setdefault((trial.state, message), []).append(trial.number)
    ordered = sorted(groups.items(), key=lambda group: -len(group[1]))
    return [
        {"state": state, "message": message, "trials": numbers}
        for (state, message), numbers in ordered
    ]


def _command(name: str, state: SweepState, storage: str) -> str:
    return f"magtkd {name} {state.name} --storage {shlex.quote(redact(storage))}"


def mlflow_status(folder: Path, uri: str, *, is_tracked: bool = True) -> Status:
    """What MLflow lacks of a sweep: `state` is `up to date`, `behind` (by `num_events`), `not
    recorded` (as was asked for), or `unreachable` (for a `reason`)."""
    from tune.tracking.tracker import num_behind

    told: Status = {"address": redact(uri)}
    try:
        number = num_behind(folder / "ledger.jsonl", uri)
    except StorageError as error:
        if not is_tracked:
            return told | {"state": "not recorded"}
        return told | {"state": "unreachable", "reason": redact(str(error))}
    if number and not is_tracked:
        return told | {"state": "not recorded"}
    return told | {"state": "behind" if number else "up to date", "num_events": number}
