"""What reuse saves: a grid of 4 teachers x 5 distillation temperatures x 4 fusions on MOSI, with
and without sharing stages between trials.

    python benchmarks/stage_reuse.py --data mosi.parquet
    python benchmarks/stage_reuse.py --data mosi.parquet --fusions rates
    python benchmarks/stage_reuse.py --data mosi.parquet --fusions rates --teacher features
    python benchmarks/stage_reuse.py --data mosi.parquet --trials 8

Students and fusion are as in experiments/mosi.yaml. The teacher is as in experiments/meld.yaml, a
small prompted transformer, and the four teachers are four prompt lengths; with `--teacher features`
it is as in experiments/mosi.yaml, which classifies ready-made text features in under a second and
so leaves little to save. The four fusions are MAGT and the concatenating baseline at two learning
rates each; with `--fusions rates` they are MAGT at four.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
from collections.abc import Sequence
from typing import Any

import common

TARGET = 3.0
STAGES = ("teacher", "audio", "video", "fusion")
TEACHERS: dict[str, dict[str, Any]] = {
    "tiny": {"teacher.prompt_length": {"choice": [2, 4, 8, 16]}},
    "features": {"teacher.hidden_dim": {"choice": [32, 64, 96, 128]}},
}
TEMPERATURES: dict[str, Any] = {
    "audio.distill.temperature": {
        "choice": [1.0, 2.0, 3.0, 4.0, 8.0],
        "tie": ["video.distill.temperature"],
    }
}
FUSIONS: dict[str, dict[str, Any]] = {
    "models": {
        "fusion.model": {"choice": ["magt", "concat"]},
        "fusion.learning_rate": {"choice": [1e-3, 3e-3]},
    },
    "rates": {"fusion.learning_rate": {"choice": [3e-4, 1e-3, 2e-3, 3e-3]}},
}


def teacher_section(teacher: str) -> dict[str, Any]:
    """The section of the experiment that has this kind of teacher."""
    from magtkd.config import read_config_file

    file = {"tiny": "meld.yaml", "features": "mosi.yaml"}[teacher]
    section: dict[str, Any] = read_config_file(common.EXPERIMENTS / file)["teacher"]
    return section


def sweep_once(data: str, teacher: str, fusions: str, trials: int, reuse: bool) -> dict[str, Any]:
    """Run the sweep, and tell what it cost and the dev metrics of each trial."""
    sweep = common.sweep_with(
        "mosi.yaml",
        ["name=stage-reuse", f"data.path={data}"],
        teacher=teacher_section(teacher),
        search={"sampler": "grid", "num_trials": trials, "max_concurrent": 4},
        scheduler={"kind": "fifo"},
        space=FUSIONS[fusions] | TEMPERATURES | TEACHERS[teacher],
    )
    with common.scratch() as storage:
        run = common.run_timed(sweep, storage, reuse=reuse, tracking_uri="")
    assert run.state.count() == {"completed": trials}, run.state.count()
    found = {
        json.dumps(trial.values, sort_keys=True): {
            "dev": trial.dev.to_json() if trial.dev else None,
            "reports": [[report.epoch, report.metrics] for report in trial.reports],
        }
        for trial in run.state.trials.values()
    }
    return run.summary() | {"found": found}


def expected_trainings(values: Sequence[str]) -> dict[str, int]:
    """How many distinct teachers, students and fusions these trials have."""
    trials = [json.loads(one) for one in values]

    def distinct(*prefixes: str) -> int:
        return len(
            {json.dumps({k: v for k, v in t.items() if k.startswith(prefixes)}) for t in trials}
        )

    return {
        "teacher": distinct("teacher."),
        "audio": distinct("teacher.", "audio."),
        "video": distinct("teacher.", "video."),
        "fusion": distinct(""),
    }


def check(reused: dict[str, Any], alone: dict[str, Any], trials: int) -> None:
    """Exactly as many trainings as there are distinct stages, and the same results."""
    trained = {stage: reused["stages"][stage]["trained"] for stage in STAGES}
    assert trained == expected_trainings(list(reused["found"])), trained
    if trials == 80:
        assert trained == {"teacher": 4, "audio": 20, "video": 20, "fusion": 80}, trained
    for stage in STAGES:
        assert alone["stages"][stage] | {"trained": trials, "reused": 0} == alone["stages"][stage]
    assert reused["found"].keys() == alone["found"].keys()
    for values, found in reused["found"].items():
        assert found == alone["found"][values], f"other results: {values}"


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--data", required=True, help="MOSI as Parquet")
    parser.add_argument("--teacher", choices=list(TEACHERS), default="tiny")
    parser.add_argument("--fusions", choices=list(FUSIONS), default="models")
    parser.add_argument("--trials", type=int, default=80)
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    if options.child:
        with contextlib.redirect_stdout(io.StringIO()):
            answer = sweep_once(options.data, **json.loads(options.child))
        print(json.dumps(answer))
        return
    result: dict[str, Any] = {"machine": common.machine()}
    names = ("teacher", "fusions", "trials")
    shared = {name: getattr(options, name) for name in names}
    rounds = common.alternate(
        {
            name: functools.partial(
                common.in_process,
                __file__,
                shared | {"reuse": name == "reuse"},
                arguments=["--data", options.data],
            )
            for name in ("reuse", "no reuse")
        },
        options.rounds,
    )
    for one in rounds:
        check(one["reuse"], one["no reuse"], options.trials)
        for answer in one.values():
            del answer["found"]
    result |= {
        **shared,
        "same_results": True,
        "rounds": rounds,
        "ratio": common.median_ratio(rounds, "no reuse", "reuse"),
        "target": TARGET,
    }
    publish(result, options.out)


def publish(result: dict[str, Any], out: Any) -> None:
    last = result["rounds"][-1]
    rows: list[list[Any]] = []
    for stage in ("data", *STAGES):
        with_reuse, without = (last[name]["stages"][stage] for name in ("reuse", "no reuse"))
        rows.append(
            [
                stage,
                with_reuse["trained"],
                with_reuse["seconds"],
                without["trained"],
                without["seconds"],
            ]
        )
    for name in ("seconds_to_first_trial", "seconds_to_first_report", "seconds"):
        label = {"seconds": "wall time"}.get(name, name.replace("_", " "))
        rows.append([label, "", last["reuse"][name], "", last["no reuse"][name]])
    rows.append(["ratio of wall times (at least 3)", "", "", "", result["ratio"]])
    columns = ["", "trained, reuse", "seconds, reuse", "trained, no reuse", "seconds, no reuse"]
    title = f"stage_reuse (teacher: {result['teacher']}, fusions: {result['fusions']})"
    common.publish(title, result, columns, rows, out)


if __name__ == "__main__":
    main()
