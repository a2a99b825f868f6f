"""What the events of a ledger mean for the runs of a sweep in MLflow, without MLflow."""

from __future__ import annotations

import json
import math
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import yaml

from tune.ledger import (
    EpochReported,
    Event,
    RaceSetup,
    RoundDecided,
    StagesRecorded,
    SweepChanged,
    SweepClosed,
    SweepEnd,
    SweepOpened,
    SweepResumed,
    SweepState,
    TestRevealed,
    TrialChanged,
    TrialEnded,
    TrialEvent,
    TrialState,
    TrialStatus,
    TrialSuggested,
    Warned,
)
from tune.redact import redact
from tune.tracking.notes import race_note, sweep_note, trial_note

__all__ = ["NOTE_TAG", "STATUS", "Projection", "RunUpdate", "legal_name", "own_run_name"]

MAX_PARAM_LENGTH = 6000
MAX_TAG_LENGTH = 5000
MAX_NAME_LENGTH = 250
NOTE_TAG = "mlflow.note.content"  # which MLflow shows as the description
SEARCH_SECTIONS = ("objective", "search", "scheduler")

STATUS = {
    TrialStatus.RUNNING: "RUNNING",
    TrialStatus.COMPLETED: "FINISHED",
    TrialStatus.STOPPED: "KILLED",
    TrialStatus.DIVERGED: "FAILED",
    TrialStatus.FAILED: "FAILED",
}
"""MLflow's status for each of the ledger's."""


@dataclass
class RunUpdate:
    """What a run still lacks; `number` is None for the sweep's own run."""

    number: int | None
    name: str
    start_time: int
    _: KW_ONLY
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
        self.params[legal_name(name)] = _text(value, MAX_PARAM_LENGTH)

    def tag(self, name: str, value: Any) -> None:
        """Add a tag, or change it."""
        self.tags[legal_name(name)] = _text(value, MAX_TAG_LENGTH)

    def metric(self, name: str, value: float | None, at: int, step: int) -> None:
        """Add a point; None is not a number, and MLflow keeps it as that."""
        self.metrics.append(
            (legal_name(name), math.nan if value is None else float(value), at, step)
        )

    def close(self, status: str, end_time: int | None) -> None:
        """Set the status, and the end where there is one."""
        self.status, self.end_time = status, end_time


class Projection:
    """Folds events and collects in `updates` what they mean for the runs.

    `links` are the addresses of views that descriptions have, by name.
    """

    def __init__(self) -> None:
        self.links: Mapping[str, str] = {}
        self.state = SweepState()
        self.updates: dict[int | None, RunUpdate] = {}
        self._num_completed = 0
        self._best: tuple[float, int] | None = None

    def apply(self, event: Event) -> None:
        """Fold in one event; what it repeats is left out."""
        if not self.state.apply(event):
            return
        match event:
            case TrialEvent():
                self._project_trial(event)
            case SweepOpened():
                self._opened()
            case SweepResumed():
                self._resumed()
            case SweepChanged():
                self._change()
            case SweepClosed():
                self._closed(event)
            case RoundDecided():
                self._decided(event)
            case Warned():
                self._sweep().tag("magtkd.warning", event.message)

    def _project_trial(self, event: TrialEvent) -> None:
        trial = self.state.trials[event.trial]
        update = self._trial(trial)
        match event:
            case EpochReported():
                for metric, number in event.metrics.items():
                    update.metric(metric, number, event.time, event.epoch)
                # Sent from the update, and never read again: memory must not grow with it.
                trial.reports.clear()
            case TrialSuggested():
                update.tag("magtkd.state", "running")
                for name, value in event.values.items():
                    update.param(name, value)
                if event.seed is not None:
                    update.param("seed", event.seed)
                if self.state.race is not None:
                    repeated = self.state.race.entry_of(trial.suggested).trial
                    update.tag("magtkd.confirms", _trial_name(repeated))
            case StagesRecorded():
                self._stages(trial, update, event)
            case TrialChanged():
                self._changed(trial, update, event)
            case TrialEnded():
                self._ended(trial, update, event)
            case TestRevealed():
                update.metric("test/accuracy", event.test.accuracy, event.time, 0)
                update.metric("test/weighted_f1", event.test.weighted_f1, event.time, 0)

    def _sweep(self) -> RunUpdate:
        """The update of the sweep's run."""
        state = self.state
        name = own_run_name(state.name, state.race)
        return self.updates.setdefault(None, RunUpdate(None, name, state.opened_time))

    def _trial(self, trial: TrialState) -> RunUpdate:
        """The update of a trial's run."""
        update = RunUpdate(trial.number, self._run_name(trial), trial.suggested_time)
        return self.updates.setdefault(trial.number, update)

    def _run_name(self, trial: TrialState) -> str:
        race = self.state.race
        if race is None:
            return _trial_name(trial.number)
        repeated = race.entry_of(trial.suggested).trial
        return f"{race.name}/{_trial_name(repeated)}/seed-{trial.suggested.seed}"

    def _opened(self) -> None:
        config, update, race = self.state.config, self._sweep(), self.state.race
        if race is not None:
            update.param("trials", [entry.trial for entry in race.entries])
            update.param("seeds", list(race.seeds))
            update.param("confidence", race.confidence)
            update.param("vary", race.vary)
        # Not the whole configuration as parameters: each name is a column of the table of runs,
        # and a hundred that never vary would hide the few that do.
        sections = SEARCH_SECTIONS if race is None else SEARCH_SECTIONS[:1]
        searched = {name: config[name] for name in sections if name in config}
        for name, value in _flatten(searched):
            if value is not None:  # a limit that is not set
                update.param(name, value)
        for name, value in _flatten(self.state.versions, "version."):
            update.tag(name, value)
        self._describe(update)

    def _change(self) -> None:
        """MLflow keeps the first value of a parameter: what it is now is a tag."""
        update = self._sweep()
        update.tag("magtkd.changed", self.state.changes)
        self._describe(update)

    def _describe(self, update: RunUpdate) -> None:
        """The sweep as it is now."""
        config = self.state.config
        self._note(update)
        update.files["sweep.yaml"] = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)

    def _decided(self, event: RoundDecided) -> None:
        """The means so far as curves over the number of seeds, and what they come to."""
        update = self._sweep()
        for one in event.standings:
            if one.mean is not None:
                name = f"mean/{_trial_name(one.trial)}"
                update.metric(name, one.mean, event.time, event.num_seeds)
        if event.chosen is not None:
            update.tag("magtkd.chosen", _trial_name(event.chosen))
        self._note(update)

    def _note(self, update: RunUpdate) -> None:
        """The description of the sweep's run, or of the confirmation's."""
        state = self.state
        if state.race is not None:
            update.tag(NOTE_TAG, race_note(state))
        else:
            best = None if self._best is None else state.trials[-self._best[1]]
            update.tag(NOTE_TAG, sweep_note(state, best))
        if self.links and (state.race is None or state.chosen is not None):
            # Not as any other text: what follows `Key=` in an address is not shown in that.
            links = " · ".join(f"[{name}]({address})" for name, address in self.links.items())
            update.tags[NOTE_TAG] += f"\n\n{links}"

    def _resumed(self) -> None:
        """What an interruption had closed is open again."""
        self._sweep().close("RUNNING", None)
        self._mark_running("running", "RUNNING", None)

    def _closed(self, event: SweepClosed) -> None:
        """The sweep ends; trials that a resume would continue are closed until then."""
        status = "FINISHED" if event.reason == SweepEnd.FINISHED else "KILLED"
        self._sweep().close(status, event.time)
        if event.why is not None:
            self._sweep().tag("magtkd.ended_by", event.why)
        self._mark_running("interrupted", "KILLED", event.time)

    def _mark_running(self, tag: str, status: str, end_time: int | None) -> None:
        for trial in self.state.trials.values():
            if trial.state == TrialStatus.RUNNING:
                update = self._trial(trial)
                update.tag("magtkd.state", tag)
                update.close(status, end_time)

    def _stages(self, trial: TrialState, update: RunUpdate, event: StagesRecorded) -> None:
        for stage in event.stages:
            record = trial.stages[stage]
            update.tag(f"stage.{stage}.key", record.key)
            update.tag(f"stage.{stage}.outcome", record.outcome)
            if record.host is not None:
                update.tag(f"stage.{stage}.host", record.host)
            if record.device is not None:
                update.tag(f"stage.{stage}.device", record.device)
            update.metric(f"seconds/{stage}", record.seconds, event.time, 0)
            measured = {
                "samples_per_second": record.samples_per_second,
                "peak_memory": record.peak_memory,
            }
            for name, value in measured.items():
                if value is not None:
                    update.metric(f"{name}/{stage}", float(value), event.time, 0)

    def _changed(self, trial: TrialState, update: RunUpdate, event: TrialChanged) -> None:
        """Values that population based training changed: numbers as metrics, the rest as tags."""
        for name, value in event.values.items():
            history = {epoch: new[name] for epoch, new in trial.changes.items() if name in new}
            if not isinstance(value, int | float) or isinstance(value, bool):
                update.tag(f"values.{name}", history)
                continue
            before = trial.values.get(name)
            if len(history) == 1 and isinstance(before, int | float):
                update.metric(f"values/{name}", before, trial.suggested_time, 0)
            update.metric(f"values/{name}", value, event.time, event.epoch)

    def _ended(self, trial: TrialState, update: RunUpdate, event: TrialEnded) -> None:
        chosen = self._chosen(trial)
        update.tag("magtkd.state", trial.state)
        update.tag(NOTE_TAG, trial_note(trial, chosen))
        if trial.message:
            update.tag("magtkd.message", trial.message)
        if trial.epoch is not None:
            update.tag("magtkd.epoch", trial.epoch)
        # Step 0 though another epoch was chosen: MLflow draws bars where no step but 0 occurs.
        for name, value in chosen.items():
            update.metric(f"chosen/{name}", value, event.time, 0)
        if trial.dev is not None:
            report = {"epoch": trial.epoch, "dev": trial.dev.to_json()}
            update.files["report.json"] = json.dumps(report, indent=2)
        update.close(STATUS[trial.state], event.time)
        update.ended = trial
        self._follow_best(trial, event.time)

    def _chosen(self, trial: TrialState) -> dict[str, float | None]:
        """Dev metrics of the epoch that was chosen, where the table of runs shows the last."""
        names = (objective.metric for objective in self.state.objectives)
        chosen = dict(zip(names, trial.objectives or [], strict=False))
        if trial.dev is not None:
            chosen.setdefault("dev/weighted_f1", trial.dev.weighted_f1)
            chosen.setdefault("dev/accuracy", trial.dev.accuracy)
        return {name: value for name, value in chosen.items() if value is not None}

    def _follow_best(self, trial: TrialState, at: int) -> None:
        """The best so far over the completed trials, as a chart of the sweep's run."""
        objectives, value = self.state.objectives, trial.score
        if len(objectives) > 1 or value is None or self.state.race is not None:
            return
        # Among equals the lower number, as `magtkd best` has it.
        sign = objectives[0].sign
        new = (sign * value, -trial.number)
        update = self._sweep()
        if self._best is None or new > self._best:
            self._best = new
            update.tag("magtkd.best", self._run_name(trial))
            self._note(update)
        self._num_completed += 1
        best = sign * self._best[0]
        update.metric(f"best/{objectives[0].metric}", best, at, self._num_completed)


def own_run_name(name: str, race: RaceSetup | None) -> str:
    """The name of the run of a sweep, or of one of its confirmations."""
    return name if race is None else race.name


def _trial_name(number: int) -> str:
    return f"trial-{number:04d}"


# --- what MLflow takes ------------------------------------------------------------------------


def legal_name(name: str) -> str:
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
