"""How long does a report on thousands of trials take, and how large is it?

    python benchmarks/report_scale.py
    python benchmarks/report_scale.py --trials 1 50 5000 --out report_scale.json

The ledgers are made up, with nine searched names, fifteen epochs a trial, and stages that are
reused as in a real sweep; the best trial's artifacts are real, so that its part of the report is
whole. Each report is the command `magtkd report`, in a process of its own. The peer draws the same
trials with Optuna's own figures (history, slices, parallel coordinates, contours of two names,
importances), which is what one gets without a report.
"""

from __future__ import annotations

import math
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import common

from magtkd.config import with_values
from magtkd.metrics import Scores
from magtkd.pipeline import Outcome, StageRecord, run_chain
from magtkd.store import Store
from tune.config import SweepConfig
from tune.ledger import (
    EpochReported,
    Event,
    StagesRecorded,
    SweepClosed,
    SweepEnd,
    SweepLayout,
    SweepOpened,
    TrialEnded,
    TrialStatus,
    TrialSuggested,
    encode_event,
    read_sweep,
)
from tune.search import frozen_study

NUM_EPOCHS = 15
MOST_SECONDS, MOST_MEGABYTES = 20, 20
BETTER_HIGH = ("dev/weighted_f1", "dev/accuracy", "dev/macro_f1", "dev/f1/joy", "dev/f1/anger")
DATA = {"synthetic": {"num_dialogues": 600}}
SPACE: dict[str, dict[str, Any]] = {
    "teacher.learning_rate": {"float": [1e-5, 1e-2], "log": True},
    "teacher.dropout": {"choice": [0.1, 0.3, 0.5]},
    "audio.distill.temperature": {"float": [1.0, 8.0], "tie": ["video.distill.temperature"]},
    "audio.distill.logit_weight": {"float": [0.01, 1.0], "log": True},
    "video.distill.logit_weight": {"float": [0.01, 1.0], "log": True},
    "fusion.learning_rate": {"float": [1e-5, 1e-2], "log": True},
    "fusion.dropout": {"float": [0.0, 0.7]},
    "fusion.depth": {"int": [1, 4]},
    "fusion.temperature": {"float": [0.5, 8.0], "log": True},
}


def events(name: str, num_trials: int, best: dict[str, str]) -> Iterator[Event]:
    """The ledger of a sweep on two workers.

    Args:
        name: the sweep's.
        num_trials: how many trials it has.
        best: the keys of the real artifacts, which the best trial has.
    """
    generator, clock = random.Random(0), 1_000_000
    tree = {"name": name, "space": SPACE, "data": DATA}
    config = SweepConfig.model_validate(tree).model_dump(mode="json")
    yield SweepOpened(time=clock, name=name, config=config, versions={"torch": "2"}, tracked=False)
    for number in range(num_trials):
        begun = clock
        values = {one: _drawn(entry, generator) for one, entry in SPACE.items()}
        values["video.distill.temperature"] = values["audio.distill.temperature"]
        yield TrialSuggested(time=begun, trial=number, values=values)
        is_new = number < 4 or generator.random() < 0.1
        is_best = number == num_trials // 2
        upstream = {
            stage: _record(stage, number, is_new) for stage in ("teacher", "audio", "video")
        }
        key = best["fusion"] if is_best else f"fusion{number}"
        fusion = StageRecord(key, Outcome.TRAINED, 6.0, device="CPU", share=1.0, host="h1")
        if is_best:
            upstream["data"] = StageRecord(best["data"], Outcome.TRAINED, 0.1)
        begun += 4000 if is_new else 0
        reach = 0.95 if is_best else 0.6 + 0.1 * generator.random()
        reach -= 0.1 * abs(math.log10(float(values["fusion.learning_rate"])) + 3)
        is_stopped = number % 3 == 2 and not is_best
        yield StagesRecorded(time=begun + 400, trial=number, stages=upstream)
        scores = []
        for epoch in range(1, 1 + (5 if is_stopped else NUM_EPOCHS)):
            score = reach * (1 - math.exp(-epoch / 4)) + 0.01 * generator.random()
            scores.append(score)
            metrics: dict[str, float | None] = dict.fromkeys(BETTER_HIGH, score)
            metrics |= {"dev/loss": 2 - score, "train/loss": 2 - score}
            at = begun + 400 * epoch
            yield EpochReported(time=at, trial=number, epoch=epoch, metrics=metrics)
        yield StagesRecorded(time=at, trial=number, stages={"fusion": fusion})
        state = TrialStatus.STOPPED if is_stopped else TrialStatus.COMPLETED
        dev = Scores(max(scores), max(scores), {"joy": max(scores)})
        fields: dict[str, Any] = {} if is_stopped else {"objectives": [max(scores)], "dev": dev}
        epoch = 1 + scores.index(max(scores))
        yield TrialEnded(time=at, trial=number, state=state, epoch=epoch, **fields)
        clock += 3200
    yield SweepClosed(time=clock + 20_000, reason=SweepEnd.FINISHED)


def _drawn(entry: dict[str, Any], generator: random.Random) -> Any:
    if "choice" in entry:
        return generator.choice(entry["choice"])
    low, high = entry.get("float") or entry["int"]
    if "int" in entry:
        return generator.randint(low, high)
    if entry.get("log"):
        return math.exp(generator.uniform(math.log(low), math.log(high)))
    return generator.uniform(low, high)


def _record(stage: str, number: int, is_new: bool) -> StageRecord:
    outcome, seconds = (Outcome.TRAINED, 4.0) if is_new else (Outcome.REUSED, 0.0)
    key, host = f"{stage}{number if is_new else 0}", "h1" if is_new else None
    return StageRecord(key, outcome, seconds, 4.0, device="CPU", share=1.0, host=host)


def write_sweep(root: Path, num_trials: int, best: dict[str, str]) -> SweepLayout:
    """The ledger of a sweep with so many trials."""
    layout = SweepLayout(root, f"made-{num_trials}")
    layout.folder.mkdir(parents=True)
    with layout.ledger.open("wb") as file:
        for event in events(layout.name, num_trials, best):
            file.write(encode_event(event))
    return layout


def draw_with_optuna(root: str, name: str, target: str) -> None:
    """What the peer's process does: Optuna's own figures, without plotly.js."""
    import optuna.visualization as shown

    study = frozen_study(read_sweep(SweepLayout.of(root, name)))
    figures = [
        shown.plot_optimization_history(study),
        shown.plot_slice(study),
        shown.plot_parallel_coordinate(study),
        shown.plot_contour(study, ["fusion.learning_rate", "fusion.dropout"]),
        shown.plot_param_importances(study),
    ]
    with Path(target).open("w") as file:
        for figure in figures:
            file.write(figure.to_html(include_plotlyjs=False))


def seconds_of(command: list[str]) -> float:
    """Wall seconds of a command."""
    started = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - started


def measure(root: Path, num_trials: int, best: dict[str, str], most: int) -> dict[str, Any]:
    """The seconds and megabytes of a report on so many trials, and of the peer, which is left out
    beyond `most` trials."""
    layout = write_sweep(root, num_trials, best)
    page, target = root / "page.html", root / "optuna.html"
    report = [sys.executable, "-m", "tune.cli", "report", layout.name, "--storage", str(root)]
    report += ["--out", str(page)]
    found: dict[str, Any] = {"trials": num_trials, "seconds": seconds_of(report)}
    found["megabytes"] = page.stat().st_size / 1e6
    found["seconds_with_figures"] = seconds_of([*report, "--figures", str(root / "figures")])
    found["optuna_seconds"] = found["optuna_megabytes"] = None
    if 1 < num_trials <= most:
        here, arguments = str(Path(__file__).parent), (str(root), layout.name, str(target))
        code = f"import sys; sys.path.insert(0, {here!r}); import report_scale"
        code += f"; report_scale.draw_with_optuna{arguments!r}"
        found["optuna_seconds"] = seconds_of([sys.executable, "-W", "ignore", "-c", code])
        found["optuna_megabytes"] = target.stat().st_size / 1e6
    return found


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--trials", type=int, nargs="+", default=[1, 50, 500, 5000], metavar="N")
    parser.add_argument(
        "--most-optuna", type=int, default=1000, metavar="N", help="trials for the peer at most"
    )
    chosen, machine = parser.parse_args(), common.machine()
    stages = ("teacher", "audio", "video", "fusion")
    with common.scratch() as root:
        base = SweepConfig.model_validate({"data": DATA}).base
        short = {f"{stage}.epochs": 1 for stage in stages}
        artifacts = run_chain(with_values(base, short), Store(root))
        best = {stage: one.key for stage, one in artifacts.items()}
        every = [measure(root, number, best, chosen.most_optuna) for number in chosen.trials]
    columns = ("trials", "seconds", "MB", "with --figures", "Optuna's figures", "MB of them")
    rows = [["" if value is None else value for value in one.values()] for one in every]
    title = "reports by number of trials"
    common.publish(title, {"machine": machine, "reports": every}, columns, rows, chosen.out)
    is_met = all(
        one["seconds"] <= MOST_SECONDS and one["megabytes"] <= MOST_MEGABYTES for one in every
    )
    print(f"target: {MOST_SECONDS} s and {MOST_MEGABYTES} MB: {'met' if is_met else 'missed'}")


if __name__ == "__main__":
    main()
