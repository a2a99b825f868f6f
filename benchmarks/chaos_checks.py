"""What must hold of a sweep after whatever befell it, read from the ledger's lines.

Nothing here asks the product what its ledger means: the lines are folded anew, and the study, the
runs in MLflow and the scheduler's decisions are compared with that.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

__all__ = [
    "NEWS",
    "Failure",
    "check_asha",
    "check_ends",
    "check_epochs",
    "check_mlflow",
    "check_same",
    "check_stages",
    "check_study",
    "check_trials",
    "count_repeated",
    "read_lines",
    "trials_of",
    "unsaved_epochs",
]

Line = dict[str, Any]
STATES = {"completed": "COMPLETE", "stopped": "PRUNED", "diverged": "FAIL", "failed": "FAIL"}
STATUS = {"completed": "FINISHED", "stopped": "KILLED", "diverged": "FAILED", "failed": "FAILED"}
WORK = {"trial", "stage", "fusion", "engine", "raylet", "MLflow"}
"""Kinds of kills after which the same driver goes on."""
NEWS = {"trial_report", "trial_ended"}
"""Kinds of lines that show that a sweep gets on."""
NUM_SHOWN = 6


# --- lines ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Failure:
    """A check that does not hold: of which `trial` (None for the sweep), and by which `lines`."""

    check: str
    trial: int | None
    message: str
    lines: tuple[str, ...] = ()

    def __str__(self) -> str:
        who = "sweep" if self.trial is None else f"trial {self.trial}"
        shown = [f"    {line}" for line in self.lines[:NUM_SHOWN]]
        return "\n".join([f"{self.check}: {who}: {self.message}", *shown])


@dataclass
class Trial:
    """A trial as its lines tell: the first report of each epoch, and all lines in order."""

    number: int
    lines: list[Line] = field(default_factory=list)
    reports: dict[int, Line] = field(default_factory=dict)
    repeated: list[Line] = field(default_factory=list)

    def of(self, kind: str) -> list[Line]:
        """The lines of one kind."""
        return [line for line in self.lines if line["kind"] == kind]

    @property
    def end(self) -> Line | None:
        """The first line that ends it."""
        return next(iter(self.of("trial_ended")), None)

    @property
    def state(self) -> str:
        """How it ended; `running` where it has not."""
        return "running" if self.end is None else str(self.end["state"])


def read_lines(path: Path) -> list[Line]:
    """The ledger's whole lines, each with its number as `line`; a torn last one is left out.

    Raises:
        ValueError: a line is not JSON.
    """
    whole = path.read_bytes().rpartition(b"\n")[0]
    return [
        {**json.loads(text), "line": number}
        for number, text in enumerate(whole.split(b"\n"), start=1)
        if text
    ]


def shown(line: Line, length: int = 220) -> str:
    """A line as evidence: its number, and its text as far as it fits."""
    text = json.dumps({name: value for name, value in line.items() if name != "line"})
    return f"line {line['line']}: {text if len(text) <= length else text[:length] + '...'}"


def trials_of(lines: Iterable[Line]) -> dict[int, Trial]:
    """The trials by number, in the order in which the ledger names them."""
    trials: dict[int, Trial] = {}
    for line in lines:
        if not line["kind"].startswith("trial_"):
            continue
        trial = trials.setdefault(line["trial"], Trial(line["trial"]))
        trial.lines.append(line)
        if line["kind"] == "trial_report":
            if line["epoch"] in trial.reports:
                trial.repeated.append(line)
            else:
                trial.reports[line["epoch"]] = line
    return trials


def count_repeated(lines: Sequence[Line]) -> int:
    """Reports of epochs that the ledger had already."""
    return sum(len(trial.repeated) for trial in trials_of(lines).values())


def _config(lines: Sequence[Line]) -> dict[str, Any]:
    return dict(lines[0]["config"])


def _objective(lines: Sequence[Line]) -> dict[str, Any]:
    objective = _config(lines)["objective"]
    return dict(objective[0] if isinstance(objective, list) else objective)


# --- trials, epochs, stages -------------------------------------------------------------------


def check_trials(lines: Sequence[Line], num_trials: int) -> list[Failure]:
    """Each trial is suggested once and ends once, nothing of it follows, the sweep is finished."""
    failures = []
    trials = trials_of(lines)
    if sorted(trials) != list(range(num_trials)):
        missing = sorted(set(range(num_trials)) - set(trials))
        failures.append(Failure("trials", None, f"there are {sorted(trials)}, without {missing}"))
    for trial in trials.values():
        for kind in ("trial_suggested", "trial_ended"):
            found = trial.of(kind)
            if len(found) != 1:
                evidence = tuple(map(shown, found or trial.lines[-2:]))
                failures.append(Failure("trials", trial.number, f"{len(found)} {kind}", evidence))
        if trial.lines[0]["kind"] != "trial_suggested":
            evidence = (shown(trial.lines[0]),)
            failures.append(Failure("trials", trial.number, "something before it began", evidence))
        failures += _after_end(trial)
    closed = [line for line in lines if line["kind"] != "warning"][-1]
    if (closed["kind"], closed.get("reason")) != ("sweep_closed", "finished"):
        failures.append(Failure("trials", None, "not closed as finished", (shown(closed),)))
    if lines[0]["kind"] != "sweep_opened" or sum(x["kind"] == "sweep_opened" for x in lines) != 1:
        failures.append(Failure("trials", None, "not opened once", (shown(lines[0]),)))
    return failures


def _after_end(trial: Trial) -> list[Failure]:
    end = trial.end
    late = [line for line in trial.lines if end and line["line"] > end["line"]]
    if end is None or not late:
        return []
    evidence = (shown(end), *map(shown, late))
    return [Failure("trials", trial.number, f"{len(late)} lines after its end", evidence)]


def check_epochs(lines: Sequence[Line]) -> list[Failure]:
    """First reports of epochs are 1, 2, 3, ... apart from where a trial went on from another's
    session, and a repeated epoch has the same metrics."""
    failures = []
    for trial in trials_of(lines).values():
        before = 0
        changed = [line["line"] for line in trial.of("trial_changed")]
        last_line = 0
        for epoch, line in trial.reports.items():
            jumped = any(last_line < at < line["line"] for at in changed)
            if epoch != before + 1 and not jumped:
                message = f"epoch {epoch} follows {before}"
                failures.append(Failure("epochs", trial.number, message, (shown(line),)))
            before, last_line = epoch, line["line"]
        for line in trial.repeated:
            first = trial.reports[line["epoch"]]
            if line["metrics"] != first["metrics"] and not changed:
                evidence = (shown(first, 400), shown(line, 400))
                message = f"epoch {line['epoch']} was repeated with other metrics"
                failures.append(Failure("epochs", trial.number, message, evidence))
        failures += _all_epochs(lines, trial)
    return failures


def _all_epochs(lines: Sequence[Line], trial: Trial) -> list[Failure]:
    """A completed trial got to the last epoch, and its chosen epoch is one that it reported."""
    if trial.state != "completed" or trial.end is None or trial.of("trial_changed"):
        return []
    failures = []
    epochs = _config(lines)["fusion"]["epochs"]
    last = max(trial.reports, default=0)
    if "fusion.epochs" not in trial.lines[0].get("values", {}) and last != epochs:
        message = f"completed with epoch {last} of {epochs}"
        failures.append(Failure("epochs", trial.number, message, (shown(trial.end),)))
    chosen = trial.reports.get(trial.end.get("epoch", 0))
    metric = _objective(lines)["metric"]
    if chosen is None or trial.end["objectives"] != [chosen["metrics"][metric]]:
        message = "its objective is not that of the chosen epoch's report"
        failures.append(Failure("epochs", trial.number, message, (shown(trial.end, 400),)))
    return failures


def check_stages(
    lines: Sequence[Line], damaged: Iterable[tuple[str, str]] = (), *, fusion: bool = True
) -> tuple[list[Failure], dict[str, int]]:
    """No stage was trained twice, apart from those whose artifact was damaged.

    Returns:
        the failures, and per stage the distinct keys for which nobody is recorded as the one who
        trained them: whoever did was killed before it could say so.
    """
    trained: dict[tuple[str, str], list[Line]] = defaultdict(list)
    keys: set[tuple[str, str]] = set()
    for line in lines:
        for stage, record in line.get("stages", {}).items() if "trial" in line else ():
            keys.add((stage, record["key"]))
            if record["outcome"] == "trained":
                trained[stage, record["key"]].append(line)
    excused = set(damaged)
    failures = [
        Failure("stages", None, f"{stage} {key} was trained {len(found)} times", _told(found))
        for (stage, key), found in trained.items()
        if len(found) > 1 and (stage, key) not in excused and (fusion or stage != "fusion")
    ]
    silent = Counter(stage for stage, key in keys - set(trained) if stage != "fusion")
    return failures, dict(silent)


def unsaved_epochs(lines: Sequence[Line], storage: Path) -> dict[int, int]:
    """For each trial without an end, the epochs that it reported and that neither its newest
    checkpoint nor an artifact holds: what a driver that is gone leaves to be done again."""
    lacking = {}
    whole = [
        json.loads(file.read_bytes())["reports"][0]["metrics"]
        for file in storage.glob("artifacts/fusion/*/metrics.json")
    ]
    for trial in trials_of(lines).values():
        reported = max(trial.reports, default=0)
        if trial.end is not None or (reported and trial.reports[1]["metrics"] in whole):
            continue
        if trial.of("trial_changed"):
            continue  # it went on from another's session, which may be many epochs younger
        folder = storage / "sessions/sweeps" / lines[0]["sweep_id"] / str(trial.number)
        files = folder.glob("**/*.safetensors")
        newest = max(files, key=lambda file: file.name, default=None)
        saved = 0 if newest is None else _epoch_of(newest)
        lacking[trial.number] = max(0, reported - saved)
    return lacking


def _epoch_of(checkpoint: Path) -> int:
    """The epoch in the header of a checkpoint."""
    with checkpoint.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return int(json.loads(header["__metadata__"]["progress"])["epoch"])


def _told(found: Iterable[Line]) -> tuple[str, ...]:
    return tuple(shown(line, 300) for line in found)


def check_ends(
    lines: Sequence[Line], kills: Sequence[Mapping[str, Any]], max_failures: int
) -> tuple[list[Failure], list[str]]:
    """No trial failed but for more kills of its work than it may have.

    Returns:
        the failures, and a line for each trial that is excused.
    """
    failures, excused = [], []
    for trial in trials_of(lines).values():
        if trial.state != "failed" or trial.end is None:
            continue
        since = max(line["time"] for line in [trial.lines[0], *trial.reports.values()])
        hits = [kill for kill in kills if since <= kill["time"] <= trial.end["time"]]
        # A driver that was started anew counts from nought, and nobody's work is in MLflow.
        ended = [index for index, kill in enumerate(hits) if kill["kind"] not in WORK]
        hits = hits[max(ended, default=-1) + 1 :]
        reason = f"{len(hits)} kills since its last progress: {', '.join(k['kind'] for k in hits)}"
        if len(hits) > max_failures:
            excused.append(f"trial {trial.number}: {trial.end.get('message')}; {reason}")
        else:
            failures.append(Failure("failed", trial.number, reason, (shown(trial.end, 600),)))
    return failures, excused


def check_same(lines: Sequence[Line], other: Sequence[Line]) -> list[Failure]:
    """Two sweeps suggested the same values and got the same reports, bit for bit."""
    failures = []
    ours, theirs = trials_of(lines), trials_of(other)
    if set(ours) != set(theirs):
        failures.append(Failure("same", None, f"{sorted(ours)} against {sorted(theirs)}"))
    for number in sorted(set(ours) & set(theirs)):
        for what, read in _COMPARED.items():
            left, right = read(ours[number]), read(theirs[number])
            if left != right:
                evidence = (
                    f"disturbed:   {_difference(left, right)}",
                    f"undisturbed: {_difference(right, left)}",
                )
                failures.append(Failure("same", number, f"{what} differ", evidence))
    return failures


def _difference(value: Any, other: Any) -> str:
    if isinstance(value, dict) and isinstance(other, dict):
        value = {name: one for name, one in value.items() if other.get(name) != one}
    return str(value)[:300]


_COMPARED: dict[str, Callable[[Trial], Any]] = {
    "values": lambda trial: trial.lines[0].get("values"),
    "reports": lambda trial: {epoch: line["metrics"] for epoch, line in trial.reports.items()},
    "end": lambda trial: [
        (trial.end or {}).get(name) for name in ("state", "epoch", "dev", "objectives")
    ],
    "keys": lambda trial: {
        stage: record["key"]
        for line in trial.of("trial_stages")
        for stage, record in line["stages"].items()
    },
}


# --- the scheduler ----------------------------------------------------------------------------


class _Rungs:
    """Ray's asynchronous successive halving: which reports stop their trial.

    Milestones are grace * factor^k; a report is compared at the highest milestone that it reached
    and its trial has no record at: below the (1 - 1 / factor) quantile of what is recorded there,
    the trial stops. Then it is recorded too.
    """

    def __init__(self, grace: int, factor: float, max_epochs: int) -> None:
        self._factor, self._max_epochs = factor, max_epochs
        num_rungs = int(np.log(max_epochs / grace) / np.log(factor) + 1)
        self._rungs: list[tuple[float, dict[int, float]]] = [
            (grace * factor**power, {}) for power in reversed(range(num_rungs))
        ]

    def stops(self, number: int, epoch: int, value: float) -> tuple[bool, str]:
        """Whether this report stops its trial, and why."""
        for milestone, recorded in self._rungs:
            if epoch < milestone or number in recorded:
                continue
            cutoff = None
            if recorded:
                cutoff = np.nanpercentile(list(recorded.values()), (1 - 1 / self._factor) * 100)
            recorded[number] = value
            reason = f"{value} at rung {milestone} with cutoff {cutoff} of {len(recorded) - 1}"
            return cutoff is not None and bool(value < cutoff), reason
        return False, "between rungs"


def check_asha(lines: Sequence[Line]) -> list[Failure]:
    """ASHA stopped the trials that it must, where it must, by all that was reported before."""
    config, objective = _config(lines), _objective(lines)
    scheduler, max_epochs = config["scheduler"], config["fusion"]["epochs"]
    rungs = _Rungs(scheduler["grace_period"], scheduler["reduction_factor"], max_epochs)
    sign = 1 if objective["mode"] == "max" else -1
    trials = trials_of(lines)
    must_stop: dict[int, tuple[Line, str]] = {}
    for line in _first_reports(lines, trials):
        value = line["metrics"].get(objective["metric"])
        stop, reason = True, "not a finite number"
        if value is not None:
            stop, reason = rungs.stops(line["trial"], line["epoch"], sign * value)
        last = line is list(trials[line["trial"]].reports.values())[-1]
        if last and trials[line["trial"]].state == "completed":
            continue  # its last result is not asked about
        if stop:
            must_stop.setdefault(line["trial"], (line, reason))
    return [
        failure
        for trial in trials.values()
        for failure in _stopped_rightly(trial, must_stop.get(trial.number))
    ]


def _first_reports(lines: Iterable[Line], trials: Mapping[int, Trial]) -> list[Line]:
    return [
        line
        for line in lines
        if line["kind"] == "trial_report" and trials[line["trial"]].reports[line["epoch"]] is line
    ]


def _stopped_rightly(trial: Trial, must: tuple[Line, str] | None) -> list[Failure]:
    last = list(trial.reports.values())[-1:] or [trial.lines[-1]]
    if must is None:
        if trial.state != "stopped":
            return []
        epoch = max(trial.reports, default=0)
        message = f"was stopped, which no event before epoch {epoch} explains"
        return [Failure("asha", trial.number, message, (shown(last[0]),))]
    line, reason = must
    if trial.state == "stopped" and line is last[0]:
        return []
    message = f"must stop at epoch {line['epoch']} ({reason}), but is {trial.state}"
    message += f" with epoch {max(trial.reports, default=0)}"
    return [Failure("asha", trial.number, message, (shown(line), shown(last[0])))]


# --- projections ------------------------------------------------------------------------------


def check_study(path: Path, lines: Sequence[Line]) -> list[Failure]:
    """The study that the product rebuilds has the ledger's trials."""
    from tune.config import SweepConfig
    from tune.ledger import read_events
    from tune.search import SweepStudy

    study = SweepStudy(SweepConfig.model_validate(_config(lines)), read_events(path)).study
    trials, metric = trials_of(lines), _objective(lines)["metric"]
    if len(study.trials) != len(trials):
        return [Failure("study", None, f"{len(study.trials)} trials against {len(trials)}")]
    failures = []
    for frozen in study.trials:
        trial = trials[frozen.number]
        reports = {epoch: line["metrics"][metric] for epoch, line in trial.reports.items()}
        finite = {epoch: value for epoch, value in reports.items() if value is not None}
        values = trial.lines[0]["values"]
        wrong = {
            "state": (frozen.state.name, STATES.get(trial.state)),
            "params": (frozen.params, {name: values.get(name) for name in frozen.params}),
            "intermediate values": (frozen.intermediate_values, finite),
        }
        failures += [
            Failure("study", trial.number, f"{what}: {left} against the ledger's {right}")
            for what, (left, right) in wrong.items()
            if left != right
        ]
    return failures


def check_mlflow(lines: Sequence[Line], uri: str) -> list[Failure]:
    """MLflow's runs are what the ledger says: series, states, tags, no run twice."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(lines[0]["name"])
    if experiment is None:
        return [Failure("mlflow", None, f"no experiment {lines[0]['name']!r}")]
    trials = trials_of(lines)
    found = client.search_runs([experiment.experiment_id], max_results=5000)
    by_number = Counter(run.data.tags.get("magtkd.trial") for run in found)
    expected: Counter[str | None] = Counter([None, *map(str, trials)])
    if by_number != expected:
        message = f"more runs {dict(by_number - expected)}, fewer {dict(expected - by_number)}"
        return [Failure("mlflow", None, message)]
    runs = {run.data.tags.get("magtkd.trial"): run for run in found}
    parent = runs.pop(None)
    failures = _differences(None, {"status": (parent.info.status, "FINISHED")})
    for trial in trials.values():
        run = runs[str(trial.number)]
        failures += _differences(trial.number, _expected_of_run(run, trial, parent.info.run_id))
        failures += _check_series(client, run, trial)
    return failures


def _differences(number: int | None, pairs: Mapping[str, tuple[Any, Any]]) -> list[Failure]:
    return [
        Failure("mlflow", number, f"{what}: {left!r} against the ledger's {right!r}")
        for what, (left, right) in pairs.items()
        if left != right
    ]


def _expected_of_run(run: Any, trial: Trial, parent: str) -> dict[str, tuple[Any, Any]]:
    tags, first = run.data.tags, trial.lines[0]
    wanted: dict[str, tuple[Any, Any]] = {
        "status": (run.info.status, STATUS.get(trial.state)),
        "state tag": (tags.get("magtkd.state"), trial.state),
        "parent": (tags.get("mlflow.parentRunId"), parent),
        "start": (run.info.start_time, first["time"]),
        "end": (run.info.end_time, trial.end and trial.end["time"]),
        "parameters": (set(run.data.params), set(first["values"])),
    }
    for line in trial.of("trial_stages"):
        for stage, record in line["stages"].items():
            wanted[f"key of {stage}"] = (tags.get(f"stage.{stage}.key"), record["key"])
    return wanted


def _check_series(client: Any, run: Any, trial: Trial) -> list[Failure]:
    series: dict[str, list[tuple[int, float, int]]] = defaultdict(list)
    for epoch, line in trial.reports.items():
        for name, value in line["metrics"].items():
            point = math.nan if value is None else value
            series[name].append((epoch, point, line["time"]))
    names = {name for name in run.data.metrics if name.startswith(("dev/", "train/"))}
    failures = _differences(trial.number, {"metrics": (names, set(series))})
    for name in sorted(names & set(series)):
        history = client.get_metric_history(run.info.run_id, name)
        sent = sorted((one.step, one.value, one.timestamp) for one in history)
        kept = sorted(series[name])
        if repr(sent) != repr(kept):  # by text, as NaN is no number's equal
            more = [point for point in sent if repr(point) not in set(map(repr, kept))]
            fewer = [point for point in kept if repr(point) not in set(map(repr, sent))]
            message = f"{name}: more {more[:4]}, fewer {fewer[:4]}, {len(sent)} of {len(kept)}"
            failures.append(Failure("mlflow", trial.number, message))
    return failures
