"""What the events of a ledger mean for the runs of a sweep in MLflow, without MLflow."""

from __future__ import annotations

import json
import math
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from tune.ledger.state import Event, SweepState, TrialState
from tune.tracking.addresses import redact
from tune.tracking.notes import sweep_note, trial_note

__all__ = ["NOTE_TAG", "STATUS", "Projection", "RunUpdate"]

MAX_PARAM_LENGTH = 6000
MAX_TAG_LENGTH = 5000
MAX_NAME_LENGTH = 250
NOTE_TAG = "mlflow.note.content"  # which MLflow shows as the description
SEARCH_SECTIONS = ("objective", "search", "scheduler")

STATUS = {
    "running": "RUNNING",
    "completed": "FINISHED",
    "stopped": "KILLED",
    "diverged": "FAILED",
    "failed": "FAILED",
}


@dataclass
class RunUpdate:
    """What a run has yet to be told; `number` is None for the sweep's own run."""

    number: int | None
    name: str
    start_time: int
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: list[tuple[str, float, int, int]] = field(default_factory=list)
    """Name, value, time in milliseconds, step."""
    files: dict[str, str] = field(default_factory=dict)
    """Artifacts, name to content."""
    status: str | None = None
    end_time: int | None = None
    ended: TrialState | None = None
    """The trial, where artifacts that are not among `files` are due."""

    def param(self, name: str, value: Any) -> None:
        """Add a parameter."""
        self.params[_legal(name)] = _text(value, MAX_PARAM_LENGTH)

    def tag(self, name: str, value: Any) -> None:
        """Add a tag, or change it."""
        self.tags[_legal(name)] = _text(value, MAX_TAG_LENGTH)

    def metric(self, name: str, value: float | None, at: int, step: int) -> None:
        """Add a point; None is not a number, and MLflow keeps it as that."""
        self.metrics.append((_legal(name), math.nan if value is None else float(value), at, step))

    def close(self, status: str, end_time: int | None) -> None:
        """Set the status, and the end where there is one."""
        self.status, self.end_time = status, end_time


class Projection:
    """Folds events and collects in `updates` what they mean for the runs."""

    def __init__(self) -> None:
        self.state = SweepState()
        self.updates: dict[int | None, RunUpdate] = {}
        self._num_completed = 0
        self._best: tuple[float, int] | None = None

    def apply(self, event: Event) -> None:
        """Fold in one event; what it repeats is left out."""
        is_new = self.state.apply(event)
        if not is_new and event["kind"] != "warning":
            return
        project = _PROJECT.get(event["kind"])
        if project is not None:
            project(self, event)

    def sweep(self) -> RunUpdate:
        """The update of the sweep's run."""
        state = self.state
        return self.updates.setdefault(None, RunUpdate(None, state.name, state.opened_time))

    def trial(self, event: Event) -> tuple[TrialState, RunUpdate]:
        """The event's trial and the update of its run."""
        trial = self.state.trials[event["trial"]]
        update = RunUpdate(trial.number, _run_name(trial), trial.suggested_time)
        return trial, self.updates.setdefault(trial.number, update)

    def opened(self, event: Event) -> None:
        """The sweep begins."""
        config, update = self.state.config, self.sweep()
        update.tag(NOTE_TAG, sweep_note(self.state))
        # Not the whole configuration as parameters: each name is a column of the table of runs,
        # and a hundred that never vary would hide the few that do.
        searched = {name: config[name] for name in SEARCH_SECTIONS if name in config}
        for name, value in _flatten(searched):
            update.param(name, value)
        update.files["sweep.yaml"] = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
        for name, value in _flatten(self.state.versions, "version."):
            update.tag(name, value)

    def resumed(self, event: Event) -> None:
        """What an interruption had closed is open again."""
        self.sweep().close("RUNNING", None)
        self._mark_running("running", "RUNNING", None)

    def closed(self, event: Event) -> None:
        """The sweep ends; trials that a resume would go on with are closed until then."""
        finished = event["reason"] == "finished"
        self.sweep().close("FINISHED" if finished else "KILLED", event["time"])
        self._mark_running("interrupted", "KILLED", event["time"])

    def _mark_running(self, tag: str, status: str, end_time: int | None) -> None:
        for trial in self.state.trials.values():
            if trial.state == "running":
                _, update = self.trial({"trial": trial.number})
                update.tag("magtkd.state", tag)
                update.close(status, end_time)

    def suggested(self, event: Event) -> None:
        """A trial begins."""
        trial, update = self.trial(event)
        update.tag("magtkd.state", "running")
        for name, value in trial.values.items():
            update.param(name, value)

    def stages(self, event: Event) -> None:
        """A trial has some of its stages."""
        trial, update = self.trial(event)
        for stage in event["stages"]:
            record = trial.stages[stage]
            update.tag(f"stage.{stage}.key", record.key)
            update.tag(f"stage.{stage}.outcome", record.outcome)
            update.metric(f"seconds/{stage}", record.seconds, event["time"], 0)
            for name in ("samples_per_second", "peak_memory"):
                if (value := getattr(record, name)) is not None:
                    update.metric(f"{name}/{stage}", float(value), event["time"], 0)

    def changed(self, event: Event) -> None:
        """Values that population based training changed: numbers as metrics, the rest as tags."""
        trial, update = self.trial(event)
        for name, value in event["values"].items():
            told = {epoch: new[name] for epoch, new in trial.changes.items() if name in new}
            if not isinstance(value, int | float) or isinstance(value, bool):
                update.tag(f"values.{name}", told)
                continue
            before = trial.values.get(name)
            if len(told) == 1 and isinstance(before, int | float):
                update.metric(f"values/{name}", before, trial.suggested_time, 0)
            update.metric(f"values/{name}", value, event["time"], event["epoch"])

    def reported(self, event: Event) -> None:
        """An epoch's metrics."""
        trial, update = self.trial(event)
        for name, value in event["metrics"].items():
            update.metric(name, value, event["time"], event["epoch"])
        # Sent from the update, and never read again: the thread's memory must not grow with it.
        trial.reports.clear()

    def ended(self, event: Event) -> None:
        """A trial is over."""
        trial, update = self.trial(event)
        chosen = self._chosen(trial)
        update.tag("magtkd.state", trial.state)
        update.tag(NOTE_TAG, trial_note(trial, chosen))
        if trial.message:
            update.tag("magtkd.message", trial.message)
        if trial.epoch is not None:
            update.tag("magtkd.epoch", trial.epoch)
        # Step 0 though another epoch was chosen: MLflow draws bars where no step but 0 occurs.
        for name, value in chosen.items():
            update.metric(f"chosen/{name}", value, event["time"], 0)
        if trial.dev is not None:
            report = {"epoch": trial.epoch, "dev": trial.dev}
            update.files["report.json"] = json.dumps(report, indent=2)
        update.close(STATUS[trial.state], event["time"])
        update.ended = trial
        self._follow_best(trial, event["time"])

    def revealed(self, event: Event) -> None:
        """Test metrics of a selected trial."""
        _, update = self.trial(event)
        for name in ("accuracy", "weighted_f1"):
            update.metric(f"test/{name}", event["test"][name], event["time"], 0)

    def warned(self, event: Event) -> None:
        """Something that a person should know; the last of it is shown."""
        self.sweep().tag("magtkd.warning", event["message"])

    def _chosen(self, trial: TrialState) -> dict[str, float | None]:
        """Dev metrics of the epoch that was chosen, where the table of runs shows the last."""
        names = (objective.metric for objective in self.state.objectives)
        chosen = dict(zip(names, trial.objectives or [], strict=False))
        for name in ("weighted_f1", "accuracy"):
            chosen.setdefault(f"dev/{name}", (trial.dev or {}).get(name))
        return {name: value for name, value in chosen.items() if value is not None}

    def _follow_best(self, trial: TrialState, at: int) -> None:
        """The best so far over the completed trials, as a chart of the sweep's run."""
        objectives = self.state.objectives
        value = (trial.objectives or [None])[0]
        if trial.state != "completed" or len(objectives) > 1 or value is None:
            return
        # Among equals the lower number, as `magtkd best` has it.
        sign = 1 if objectives[0].mode == "max" else -1
        new = (sign * value, -trial.number)
        update = self.sweep()
        if self._best is None or new > self._best:
            self._best = new
            update.tag("magtkd.best", _run_name(trial))
        self._num_completed += 1
        best = sign * self._best[0]
        update.metric(f"best/{objectives[0].metric}", best, at, self._num_completed)


def _run_name(trial: TrialState) -> str:
    return f"trial-{trial.number:04d}"


_PROJECT: dict[str, Callable[[Projection, Event], None]] = {
    "sweep_opened": Projection.opened,
    "sweep_resumed": Projection.resumed,
    "sweep_closed": Projection.closed,
    "trial_suggested": Projection.suggested,
    "trial_stages": Projection.stages,
    "trial_changed": Projection.changed,
    "trial_report": Projection.reported,
    "trial_ended": Projection.ended,
    "test_revealed": Projection.revealed,
    "warning": Projection.warned,
}


# --- what MLflow takes ------------------------------------------------------------------------


def _legal(name: str) -> str:
    """The name as MLflow takes it; one that had to change carries a checksum, to stay distinct."""
    parts = [re.sub(r"[^\w.\- ]", "_", part) for part in name.split("/")]
    clean = "/".join("_" if part in ("", ".", "..") else part for part in parts)
    if clean == name and len(name) <= MAX_NAME_LENGTH:
        return name
    return f"{clean[: MAX_NAME_LENGTH - 9]}-{zlib.crc32(name.encode('utf-8', 'replace')):08x}"


def _text(value: Any, max_length: int) -> str:
    """A value as text that every database takes: words as they are, the rest as JSON."""
    words = isinstance(value, str) and value
    text = redact(value if words else json.dumps(value, ensure_ascii=False))
    text = text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()
    return text if len(text) <= max_length else text[: max_length - 1] + "…"


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of a tree by dotted name; lists and empty mappings are leaves."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
