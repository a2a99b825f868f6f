"""Does a sweep get slower or larger with its trials? Opening a ledger of many, and running many.

    python benchmarks/scale.py
    python benchmarks/scale.py --trials 500 --reports 30 --run 100

`--trials` and `--reports` are the size of the ledger that is written, read, replayed into a study
and a scheduler, and asked for its best trial, each in a process of its own. Then `--run` trials of
stages that train nothing are run with Ray; the time of a trial and the driver's memory are printed
for each fifth of them. `--run 0` leaves that out.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import math
import os
import random
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import common
from stub_stages import StubTrainer

SAMPLERS = ("random", "tpe", "cmaes", "nsga2", "qmc")
LEARN_FROM_COMPLETED = ("cmaes", "nsga2")
"""These are refused beside a scheduler that stops trials."""
METRICS = ("train/loss", "dev/loss", "dev/accuracy", "dev/weighted_f1", "dev/f1/joy", "dev/f1/fear")
NUM_PARTS = 5


def sweep_of(sampler: str, num_trials: int, **sections: Any) -> Any:
    if sampler in LEARN_FROM_COMPLETED:
        sections = {"scheduler": {"kind": "fifo"}} | sections
    return common.sweep_with(
        "quickstart_sweep.yaml",
        ["name=scale", "data.synthetic.num_dialogues=3"],
        search={"sampler": sampler, "num_trials": num_trials, "max_concurrent": 2},
        space={
            "fusion.learning_rate": {"float": [1e-5, 1e-1], "log": True},
            "fusion.dropout": {"float": [0.0, 0.9]},
        },
        **sections,
    )


# --- a ledger of many trials ------------------------------------------------------------------


def write_ledger(storage: Path, sampler: str, num_trials: int, num_reports: int) -> None:
    """A ledger as a driver would have written it, with the sampler's own suggestions."""
    from magtkd.metrics import Scores
    from tune.ledger import (
        EpochReported,
        SweepLayout,
        SweepOpened,
        TrialEnded,
        TrialStatus,
        TrialSuggested,
        open_ledger,
    )
    from tune.search import SweepStudy

    sweep = sweep_of(sampler, num_trials)
    study, draw = SweepStudy(sweep), random.Random(0)
    with open_ledger(SweepLayout(storage, "scale")) as ledger:
        config = sweep.model_dump(mode="json")
        study.apply(ledger.append(SweepOpened(name="scale", config=config)))
        while (asked := study.ask()) is not None:
            number, candidate = asked
            ledger.append(TrialSuggested(trial=number, values=candidate.values))
            for epoch in range(1, num_reports + 1):
                metrics: dict[str, float | None] = {name: draw.random() for name in METRICS}
                reported = EpochReported(trial=number, epoch=epoch, metrics=metrics)
                study.apply(ledger.append(reported))
            ended = TrialEnded(
                trial=number,
                state=TrialStatus.COMPLETED,
                epoch=1,
                dev=Scores(draw.random(), draw.random()),
                objectives=[draw.random()],
            )
            study.apply(ledger.append(ended))


def read(storage: str) -> dict[str, Any]:
    """What `magtkd trials` and `best` do first."""
    from tune.ledger import SweepLayout, read_sweep

    with measured() as measures:
        state = read_sweep(SweepLayout(Path(storage), "scale"))
    return measures | {"trials": len(state.trials)}


def rebuild(storage: str) -> dict[str, Any]:
    """What a resume does: the state, the study, and a scheduler's rungs."""
    from tune.ledger import SweepLayout, fold, read_events
    from tune.search import SweepStudy, replay

    with measured() as measures:
        events = list(read_events(SweepLayout(Path(storage), "scale").ledger))
        sweep = fold(events).sweep
        study = SweepStudy(sweep, events)
        replay(sweep.scheduler.build(sweep.problem), events)
    return measures | {"trials": study.num_trials}


@contextlib.contextmanager
def measured() -> Iterator[dict[str, Any]]:
    measured: dict[str, Any] = {}
    started = time.perf_counter()
    yield measured
    measured["seconds"] = time.perf_counter() - started
    measured["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def best(storage: str) -> dict[str, Any]:
    """The whole command."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "tune.cli", "best", "scale", "--storage", storage]
    subprocess.run(command, check=True, capture_output=True)
    return {"seconds": time.perf_counter() - started}


# --- many trials ------------------------------------------------------------------------------


def run(num_trials: int) -> dict[str, Any]:
    """A sweep of stub stages; time of a trial and the driver's memory, for each fifth."""
    sweep = sweep_of("random", num_trials, fusion={"epochs": 1}, scheduler={"kind": "fifo"})
    samples: list[tuple[float, float]] = []
    over = threading.Event()

    def watch() -> None:
        pages, size = Path("/proc/self/statm"), os.sysconf("SC_PAGE_SIZE")
        while not over.wait(0.5):
            samples.append((time.time(), int(pages.read_text().split()[1]) * size / 2**20))

    threading.Thread(target=watch, daemon=True).start()
    with common.scratch() as storage:
        measured = common.run_timed(sweep, storage, trainer=StubTrainer(), tracking_uri="")
    over.set()
    state = measured.state
    assert state.count() == {"completed": num_trials}, state.count()
    ended = sorted((trial.ended_time or 0) / 1000 for trial in state.trials.values())
    marks = [ended[math.ceil(part * (num_trials - 1) / NUM_PARTS)] for part in range(NUM_PARTS + 1)]
    return {
        "seconds": measured.seconds,
        "milliseconds_a_trial": [
            1000 * (end - start) / (num_trials / NUM_PARTS)
            for start, end in itertools.pairwise(marks)
        ],
        "driver_mb": [max(size for at, size in samples if at <= mark + 0.5) for mark in marks[1:]],
    }


CHILDREN: dict[str, Callable[[Any], Any]] = {
    "read": read,
    "rebuild": rebuild,
    "best": best,
    "run": run,
}


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--trials", type=int, default=5000)
    parser.add_argument("--reports", type=int, default=30)
    parser.add_argument("--run", type=int, default=3000)
    options = parser.parse_args()
    if options.child:
        child = json.loads(options.child)
        with contextlib.redirect_stdout(io.StringIO()):
            answer = CHILDREN[child["what"]](child["of"])
        print(json.dumps(answer))
        return
    result: dict[str, Any] = {"machine": common.machine()}
    result |= {"trials": options.trials, "reports": options.reports, "run": options.run}
    rows: list[list[Any]] = []

    def add(name: str, what: str, of: Any) -> None:
        measured = common.in_process(__file__, {"what": what, "of": of})
        result[name] = measured
        rows.append([name, measured["seconds"], measured.get("peak_mb", "")])

    for sampler in SAMPLERS:
        with common.scratch() as storage:
            write_ledger(storage, sampler, options.trials, options.reports)
            if sampler == SAMPLERS[0]:
                size = (storage / "sweeps/scale/ledger.jsonl").stat().st_size / 2**20
                result["ledger_mb"] = size
                add("read the ledger", "read", str(storage))
                add("magtkd best, the whole command", "best", str(storage))
            add(f"resume: state, study ({sampler}), rungs", "rebuild", str(storage))
    if options.run:
        add(f"run {options.run} trials of empty stages", "run", options.run)
        measured = result[f"run {options.run} trials of empty stages"]
        for part in range(NUM_PARTS):
            rows.append(
                [
                    f"  fifth {part + 1}: ms a trial; driver's MB",
                    measured["milliseconds_a_trial"][part],
                    measured["driver_mb"][part],
                ]
            )
    title = f"scale ({options.trials} trials x {options.reports} reports)"
    common.publish(title, result, ["what", "seconds", "peak MB"], rows, options.out)


if __name__ == "__main__":
    main()
