"""What a sweep is doing: what runs, what waits for what, what failed, and what MLflow lacks.

The ledger is the truth. The lock shows whether a driver is alive, and the live file, which the
driver replaces every few seconds, what each trial does now.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

import msgspec

from magtkd.errors import StorageLostError, TrackingError
from magtkd.store import is_locked
from tune.ledger import (
    Live,
    LiveFile,
    LiveNode,
    SweepEnd,
    SweepLayout,
    SweepState,
    TrialState,
    TrialStatus,
    find_confirmations,
    find_opened,
    first_event,
    read_owner,
    read_sweep,
)
from tune.redact import redact
from tune.results.confirmation import confirmation_lines
from tune.space import Values

__all__ = [
    "FailureGroup",
    "MlflowState",
    "MlflowStatus",
    "RunningTrial",
    "Status",
    "driver_of",
    "mlflow_status",
    "read_status",
    "sweep_status",
]

RUNNING, KILLED = "running", "killed"


# --- the status as a value --------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class RunningTrial:
    """A trial that has not ended."""

    trial: int
    values: Values
    epoch: int | None
    """The last one that was reported."""
    num_epochs: int | None
    metric: str
    value: float | None
    """Of the metric, in that epoch."""
    stages: dict[str, str]
    """How it came by each stage."""
    now: str | None
    """What it does or waits for, in words; None where no driver has written it."""
    last_report: int | None = None
    """When that epoch was reported, in milliseconds."""


@dataclass(frozen=True, kw_only=True)
class FailureGroup:
    """Trials that failed or diverged with one message."""

    state: TrialStatus
    message: str
    trials: list[int]


class MlflowState(StrEnum):
    """Whether MLflow has all of a sweep."""

    UP_TO_DATE = "up to date"
    BEHIND = "behind"
    NOT_RECORDED = "not recorded"
    """As was asked for."""
    UNREACHABLE = "unreachable"
    REFUSED = "refused"
    """By what answers, or since the address is none."""


@dataclass(frozen=True, kw_only=True)
class MlflowStatus:
    """What MLflow lacks of a sweep."""

    address: str
    state: MlflowState
    num_events: int | None = None
    """How many events it lacks, where that is known."""
    reason: str | None = None
    """Why it cannot be reached, or refuses."""


@dataclass(frozen=True, kw_only=True)
class Status:
    """A sweep's status; times are in milliseconds."""

    sweep: str
    state: str
    """`running`, `finished`, `interrupted`, or `killed` where the driver did not end in an orderly
    way."""
    process: str | None
    """The driver, where one is alive."""
    counts: dict[TrialStatus, int]
    num_trials: int | None
    """Trials that there will be; None for a grid, which may end before that, and where only the
    budget's hours end the sweep."""
    opened: int
    closed: int | None
    why: str | None
    """The setting that ended it before its last trial, with what it means."""
    last_event: int
    num_resumed: int
    is_tracked: bool
    engine: str | None
    workers: Mapping[str, int]
    nodes: list[LiveNode]
    """What each node of the cluster has, and what the workers there do."""
    wanted: list[str]
    """Workers that no node has room for, in words."""
    age: float | None
    """Seconds since the driver wrote what the trials do."""
    trials: list[RunningTrial]
    failures: list[FailureGroup]
    """The most trials first."""
    warnings: list[str]
    resume: str | None
    """The command that continues the sweep, where it can be."""
    sync: str
    confirmation: str | None = None
    """What its latest confirmation does or has found, in words."""
    mlflow: MlflowStatus | None = field(default=None)

    def to_json(self) -> dict[str, Any]:
        """The status as a JSON object."""
        tree = asdict(self) | {"nodes": [msgspec.to_builtins(node) for node in self.nodes]}
        if self.mlflow is not None:
            known = {name: value for name, value in tree["mlflow"].items() if value is not None}
            tree["mlflow"] = known
        return tree


# --- finding out ------------------------------------------------------------------------------


def driver_of(layout: SweepLayout) -> str | None:
    """The process that runs a sweep, in words; None where there is none."""
    if not is_locked(layout.lock):
        return read_owner(layout)
    text = layout.lock.read_text(encoding="utf-8", errors="replace")
    return text[:200] or "another process"


def _read_live(layout: SweepLayout, driver: str | None) -> Live | None:
    """What the driver that is alive wrote last."""
    live = LiveFile(layout.live_file).read()
    return live if live is not None and live.process == driver else None


def sweep_status(layout: SweepLayout, storage: str) -> Status:
    """The status of a sweep; see `read_status`."""
    return read_status(layout, storage)[0]


def read_status(layout: SweepLayout, storage: str) -> tuple[Status, SweepState]:
    """The status of a sweep, from its ledger, lock and live file, and the state that it is of.

    Args:
        layout: where the sweep is.
        storage: as the user gave it, for the commands that are shown.

    Raises:
        SweepError: there is no such sweep, or its ledger is damaged.
    """
    # The lock first: a driver that ends in between has then recorded its end.
    driver = driver_of(layout)
    state = read_sweep(layout)
    live = _read_live(layout, driver)
    what = state.closed or (RUNNING if driver else KILLED)
    count = state.count()
    now = live.trials if live else {}
    status = Status(
        sweep=state.name,
        state=what,
        process=driver,
        counts={one: count[one] for one in TrialStatus if count[one]},
        num_trials=_num_trials(state),
        opened=state.opened_time,
        closed=state.closed_time,
        why=state.why_closed,
        last_event=_last_time(state),
        num_resumed=state.num_resumed,
        is_tracked=state.is_tracked,
        engine=live.engine if live else None,
        workers=live.workers if live else {},
        nodes=live.nodes if live else [],
        wanted=live.wanted if live else [],
        age=live.age if live else None,
        trials=[_running(state, trial, now.get(trial.number)) for trial in state.running.values()],
        failures=_failures(state),
        warnings=list(state.warnings),
        resume=None
        if driver or what == SweepEnd.FINISHED
        else _command("sweep", "--resume", state.name, "--storage", redact(storage)),
        sync=_command("sync", state.name, "--storage", redact(storage)),
        confirmation=_confirmation(layout, state, storage),
    )
    return status, state


def _confirmation(layout: SweepLayout, state: SweepState, storage: str) -> str | None:
    places = find_confirmations(layout, state.sweep_id)
    if not places:
        return None
    driver, latest = driver_of(places[-1]), read_sweep(places[-1])
    if latest.is_confirmed:
        return confirmation_lines(latest)[0]
    again = _command("confirm", state.name, "--storage", redact(storage))
    return f"running, by {driver}" if driver else f"unfinished; to continue it: {again}"


def _num_trials(state: SweepState) -> int | None:
    if state.closed == SweepEnd.FINISHED:
        return len(state.trials)
    search = state.sweep.search
    if search.sampler == "grid" or search.most_trials is None:
        return None
    return max(search.most_trials, len(state.trials))


def _last_time(state: SweepState) -> int:
    times = [state.opened_time, state.closed_time or 0]
    for trial in state.trials.values():
        times += [trial.suggested_time, trial.ended_time or 0]
        times += [report.time for report in trial.reports[-1:]]
    return max(times)


def _running(state: SweepState, trial: TrialState, now: str | None) -> RunningTrial:
    report = trial.reports[-1] if trial.reports else None
    metric = state.objectives[0].metric
    planned = trial.values.get("fusion.epochs", state.sweep.fusion.epochs)
    return RunningTrial(
        trial=trial.number,
        values=trial.candidate.current,
        epoch=report.epoch if report else None,
        num_epochs=planned if isinstance(planned, int) else None,
        metric=metric,
        value=report.metrics.get(metric) if report else None,
        stages={stage: str(record.outcome) for stage, record in trial.stages.items()},
        now=now,
        last_report=report.time if report else None,
    )


def _failures(state: SweepState) -> list[FailureGroup]:
    groups: dict[tuple[TrialStatus, str], list[int]] = {}
    for trial in state.trials.values():
        if trial.state in {TrialStatus.FAILED, TrialStatus.DIVERGED}:
            message = redact(" ".join((trial.message or "no message").split()))
            groups.setdefault((trial.state, message), []).append(trial.number)
    ordered = sorted(groups.items(), key=lambda group: -len(group[1]))
    return [
        FailureGroup(state=what, message=message, trials=numbers)
        for (what, message), numbers in ordered
    ]


def _command(*words: str) -> str:
    return shlex.join(["magtkd", *words])


def mlflow_status(layout: SweepLayout, *, is_tracked: bool = True) -> MlflowStatus:
    """What MLflow lacks of a sweep; `is_tracked` is whether it should be recorded at all."""
    from tune.tracking import num_behind

    uri = layout.tracking_uri
    address = redact(uri)
    opened = find_opened(layout)
    try:
        places = find_confirmations(layout, opened.sweep_id) if opened is not None else []
        tracked = [one for one in places if getattr(first_event(one.ledger), "tracked", True)]
        number = sum(num_behind(place, uri) for place in (layout, *tracked))
    except (StorageLostError, TrackingError) as error:
        if is_tracked:
            is_lost = isinstance(error, StorageLostError)
            what = MlflowState.UNREACHABLE if is_lost else MlflowState.REFUSED
            return MlflowStatus(address=address, state=what, reason=redact(str(error)))
        return MlflowStatus(address=address, state=MlflowState.NOT_RECORDED)
    if number and not is_tracked:
        return MlflowStatus(address=address, state=MlflowState.NOT_RECORDED)
    state = MlflowState.BEHIND if number else MlflowState.UP_TO_DATE
    return MlflowStatus(address=address, state=state, num_events=number)
