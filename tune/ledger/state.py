"""The state of a sweep: what the events of its ledger say, folded one after another."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from magtkd.errors import SweepError
from magtkd.pipeline import StageRecord

__all__ = ["Event", "Objective", "Report", "SweepState", "TrialState"]

Event = dict[str, Any]


class Objective(NamedTuple):
    """A metric of dev, and whether more of it is better (`max`) or less (`min`)."""

    metric: str
    mode: str


class Report(NamedTuple):
    """One epoch's metrics; `time` in milliseconds, None for a metric that was not finite."""

    epoch: int
    time: int
    metrics: dict[str, float | None]


@dataclass
class TrialState:
    """One trial, as far as the ledger has told; `state` is `running` until it ended."""

    number: int
    values: dict[str, Any]
    suggested_time: int
    state: str = "running"
    stages: dict[str, StageRecord] = field(default_factory=dict)
    reports: list[Report] = field(default_factory=list)
    changes: dict[int, dict[str, Any]] = field(default_factory=dict)
    base: dict[str, Any] | None = None
    lineage: dict[int, dict[str, Any]] = field(default_factory=dict)
    dev: dict[str, Any] | None = None
    test: dict[str, Any] | None = None
    epoch: int | None = None
    objectives: list[float | None] | None = None
    message: str | None = None
    ended_time: int | None = None
    epochs_seen: set[int] = field(default_factory=set, repr=False)


class SweepState:
    """What the events so far say; `apply` folds in one more."""

    def __init__(self) -> None:
        self.sweep_id = ""
        self.name = ""
        self.config: dict[str, Any] = {}
        self.versions: dict[str, Any] = {}
        self.trials: dict[int, TrialState] = {}
        self.opened_time = 0
        self.closed_time: int | None = None
        self.closed: str | None = None
        self.num_resumed = 0
        self.is_tracked = True
        self.warnings: list[str] = []

    @property
    def objectives(self) -> list[Objective]:
        """The sweep's objectives, of which there is at least one."""
        told = self.config.get("objective") or {}
        listed = told if isinstance(told, list) else [told]
        return [
            Objective(one.get("metric", "dev/weighted_f1"), one.get("mode", "max"))
            for one in listed
        ]

    def count(self) -> Counter[str]:
        """How many trials are in which state."""
        return Counter(trial.state for trial in self.trials.values())

    def apply(self, event: Event) -> bool:
        """Fold in the next event; whether it said anything new.

        The first report of an epoch counts, and so does a trial's first end: a session that goes
        on from an export repeats the epochs since, Optuna ignores a step that it has, and MLflow
        cannot take a metric back. Kinds that this version does not know say nothing.

        Raises:
            SweepError: the event does not fit those before it.
        """
        kind = event["kind"]
        if kind in _SWEEP_FOLDS:
            return _SWEEP_FOLDS[kind](self, event)
        if kind in _TRIAL_FOLDS:
            trial = self.trials.get(event["trial"])
            if trial is None:
                raise SweepError(
                    f"ledger of sweep {self.name!r}: {kind} of trial {event['trial']}, which was "
                    "never suggested; restore the ledger from a copy"
                )
            return _TRIAL_FOLDS[kind](trial, event)
        return False


def _sweep_opened(state: SweepState, event: Event) -> bool:
    if state.sweep_id:
        raise SweepError(f"ledger of sweep {state.name!r}: opened twice; one file is one sweep")
    state.sweep_id, state.name = event["sweep_id"], event["name"]
    state.config = event["config"]
    state.versions = event.get("versions") or {}
    state.opened_time = event["time"]
    state.is_tracked = event.get("tracked", True)
    return True


def _sweep_resumed(state: SweepState, event: Event) -> bool:
    state.closed = state.closed_time = None
    state.num_resumed += 1
    return True


def _sweep_closed(state: SweepState, event: Event) -> bool:
    state.closed, state.closed_time = event["reason"], event["time"]
    return True


def _warning(state: SweepState, event: Event) -> bool:
    state.warnings.append(event["message"])
    return True


def _trial_suggested(state: SweepState, event: Event) -> bool:
    number = event["trial"]
    if number in state.trials:
        raise SweepError(f"ledger of sweep {state.name!r}: trial {number} was suggested twice")
    state.trials[number] = TrialState(number, event["values"], event["time"])
    return True


def _trial_stages(trial: TrialState, event: Event) -> bool:
    before = dict(trial.stages)
    for stage, told in event["stages"].items():
        optional = ("saved", "samples_per_second", "peak_memory")
        record = StageRecord(
            told["key"],
            told["outcome"],
            told["seconds"],
            **{name: told[name] for name in optional if name in told},
        )
        known = trial.stages.get(stage)
        # After a resume a trial finds what it trained itself; what that took must not be lost.
        if known and known.key == record.key and known.outcome == "trained" != record.outcome:
            continue
        trial.stages[stage] = record
    return trial.stages != before


def _trial_changed(trial: TrialState, event: Event) -> bool:
    known = trial.changes.get(event["epoch"], {})
    changed = known | event["values"]
    trial.changes[event["epoch"]] = changed
    trial.base = event.get("base", trial.base)
    # All of it each time: a trial that went on from another's session has the other's past.
    if "changes" in event:
        trial.lineage = {int(epoch): values for epoch, values in event["changes"].items()}
    return bool(changed != known)


def _trial_report(trial: TrialState, event: Event) -> bool:
    if event["epoch"] in trial.epochs_seen:
        return False
    trial.epochs_seen.add(event["epoch"])
    trial.reports.append(Report(event["epoch"], event["time"], event["metrics"]))
    return True


def _trial_ended(trial: TrialState, event: Event) -> bool:
    if trial.ended_time is not None:
        return False
    trial.state, trial.ended_time = event["state"], event["time"]
    trial.message, trial.dev = event.get("message"), event.get("dev")
    trial.epoch, trial.objectives = event.get("epoch"), event.get("objectives")
    return True


def _test_revealed(trial: TrialState, event: Event) -> bool:
    changed = bool(trial.test != event["test"])
    trial.test = event["test"]
    return changed


_SWEEP_FOLDS = {
    "sweep_opened": _sweep_opened,
    "sweep_resumed": _sweep_resumed,
    "sweep_closed": _sweep_closed,
    "trial_suggested": _trial_suggested,
    "warning": _warning,
}
_TRIAL_FOLDS = {
    "trial_stages": _trial_stages,
    "trial_changed": _trial_changed,
    "trial_report": _trial_report,
    "trial_ended": _trial_ended,
    "test_revealed": _test_revealed,
}
