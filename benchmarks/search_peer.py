"""What does a search on real data find for the same training, against plain Ray Tune with
`OptunaSearch` and ASHA around the same trainer?

    python benchmarks/search_peer.py --data mosi.parquet
    python benchmarks/search_peer.py --data mosi.parquet --seeds 5 --seconds 240

Four knobs, three of them continuous and two of these of early stages. Both get the same
stage-seconds of training on two workers, ASHA with the same rungs, and no first guess; the peer's
trial trains its whole chain, as a person's script would. The chosen configuration of each is then
trained with fresh seeds.
"""

from __future__ import annotations

import functools
import json
import os
import statistics
import sys
import time
from typing import Any

import common
import numpy as np
import optuna

from magtkd.config import with_values
from magtkd.metrics import Report
from magtkd.pipeline import Outcome, StageRecord, run_chain
from magtkd.store import Store
from tune.config import SweepConfig
from tune.space import Values

METRIC = "dev/weighted_f1"
TEMPERATURES = ("audio.distill.temperature", "video.distill.temperature")
SPACE: dict[str, Any] = {
    "teacher.learning_rate": {"float": [1e-4, 1e-2], "log": True},
    TEMPERATURES[0]: {"float": [1.0, 8.0], "log": True, "tie": [TEMPERATURES[1]]},
    "fusion.learning_rate": {"float": [1e-4, 1e-2], "log": True},
    "fusion.depth": {"int": [1, 3]},
}
GRACE, FACTOR, CONCURRENT, MOST_TRIALS = 3, 3, 2, 500
FRESH = (1001, 1002, 1003)
"""Seeds of training of the chosen configuration."""


def sweep_of(data: str, seed: int, seconds: float) -> SweepConfig:
    return common.sweep_with(
        "mosi_sweep.yaml",
        [f"data.path={data}", "name=peer", "resources.fusion.cpu=1"],
        search={
            "sampler": "cost_aware_tpe",
            "num_trials": None,
            "budget": {"stage_hours": seconds / 3600},
            "max_concurrent": CONCURRENT,
            "seed": seed,
            "start": [],
        },
        scheduler={"kind": "asha", "grace_period": GRACE, "reduction_factor": FACTOR},
        space=SPACE,
    )


def ours(data: str, seed: int, seconds: float) -> dict[str, Any]:
    sweep = sweep_of(data, seed, seconds)
    with common.scratch() as storage:
        run = common.run_timed(sweep, storage, tracking_uri="")
        summary, trials = run.summary(), run.state.trials.values()
        scored = [trial for trial in trials if trial.score is not None]
        best = max(scored, key=lambda trial: trial.score or 0.0)
    stages = summary["stages"]
    return {
        "dev": best.score,
        "values": best.values,
        "trials": len(trials),
        "students": sum(stages[stage]["trained"] for stage in ("audio", "video")),
        "stage_seconds": sum(stage["seconds"] for stage in stages.values()),
        "seconds": run.seconds,
    }


def drawn(trial: optuna.Trial) -> dict[str, Any]:
    """The same space for Optuna, which Ray pickles by this function's name."""
    temperature = trial.suggest_float(TEMPERATURES[0], 1.0, 8.0, log=True)
    trial.suggest_float("teacher.learning_rate", 1e-4, 1e-2, log=True)
    trial.suggest_float("fusion.learning_rate", 1e-4, 1e-2, log=True)
    trial.suggest_int("fusion.depth", 1, 3)
    return {TEMPERATURES[1]: temperature}


def peer(data: str, seed: int, seconds: float) -> dict[str, Any]:
    """A script around Ray Tune as its documentation has it."""
    import ray
    import ray.tune as ray_tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    base = sweep_of(data, seed, seconds).base

    def trainable(config: dict[str, Any]) -> None:
        trained = {"seconds": 0.0, "students": 0}

        def on_stage(stage: str, record: StageRecord) -> None:
            if record.outcome == Outcome.TRAINED and stage != "fusion":
                trained["seconds"] += record.seconds
                trained["students"] += stage in {"audio", "video"}
                trained["began"] = time.perf_counter()

        def report(stage: str, one: Report) -> None:
            if stage == "fusion":
                spent = trained["seconds"] + time.perf_counter() - trained["began"]
                metrics = {METRIC: one.metrics[METRIC], "stage_seconds": spent}
                ray_tune.report({**metrics, "students": trained["students"]})

        with common.scratch() as folder:
            run_chain(
                with_values(base, config),
                Store(str(folder)),
                reuse=False,
                report=report,
                on_stage=on_stage,
                warn=lambda line: None,
            )

    class Budget(ray_tune.Stopper):  # type: ignore[misc]
        def __init__(self) -> None:
            self.spent: dict[str, float] = {}
            self.students: dict[str, int] = {}

        def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
            self.spent[trial_id] = result["stage_seconds"]
            self.students[trial_id] = result["students"]
            return False

        def stop_all(self) -> bool:
            return sum(self.spent.values()) >= seconds

    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="error")
    budget, started = Budget(), time.perf_counter()
    with common.scratch() as storage:
        results = ray_tune.Tuner(
            ray_tune.with_resources(trainable, {"cpu": 1}),
            tune_config=ray_tune.TuneConfig(
                metric=METRIC,
                mode="max",
                search_alg=OptunaSearch(drawn, metric=METRIC, mode="max", seed=seed),
                scheduler=ASHAScheduler(
                    max_t=base.fusion.epochs, grace_period=GRACE, reduction_factor=FACTOR
                ),
                num_samples=MOST_TRIALS,
                max_concurrent_trials=CONCURRENT,
            ),
            run_config=ray_tune.RunConfig(storage_path=str(storage), stop=budget, verbose=0),
        ).fit()
        taken = time.perf_counter() - started
        best = results.get_best_result(METRIC, "max", scope="all")
        scores = best.metrics_dataframe[METRIC]
    ray.shutdown()
    return {
        "dev": float(scores.max()),
        "values": best.config,
        "trials": len(budget.spent),
        "students": sum(budget.students.values()),
        "stage_seconds": sum(budget.spent.values()),
        "seconds": taken,
    }


def fresh(data: str, values: Values) -> list[float]:
    """The best epoch's dev score of a configuration with each fresh seed."""
    base, scores = sweep_of(data, 0, 60.0).base, []
    for seed in FRESH:
        reports: list[float] = []

        def report(stage: str, one: Report, found: list[float] = reports) -> None:
            if stage == "fusion":
                found.append(one.metrics[METRIC])

        config = with_values(base, {**values, "seed": seed})
        with common.scratch() as folder:
            run_chain(config, Store(str(folder)), report=report, warn=lambda line: None)
        scores.append(max(reports))
    return scores


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--data", required=True, help="a table with features of all modalities")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=240.0, help="stage-seconds of each search")
    options = parser.parse_args()
    if options.child:
        child = json.loads(options.child)
        search = {"ours": ours, "peer": peer}[child["variant"]]
        found = search(options.data, child["seed"], options.seconds)
        print(json.dumps(found | {"fresh": fresh(options.data, found["values"])}))
        return
    result: dict[str, Any] = {"machine": common.machine(), "seconds": options.seconds}
    arguments = ["--data", os.path.abspath(options.data), "--seconds", str(options.seconds)]
    result["runs"] = runs = []
    for seed in range(options.seeds):
        for variant in ("ours", "peer") if seed % 2 else ("peer", "ours"):
            one = common.in_process(__file__, {"variant": variant, "seed": seed}, arguments)
            runs.append({"variant": variant, "seed": seed, **one})
            print(
                f"seed {seed}: {variant}: dev {100 * one['dev']:.2f}", file=sys.stderr, flush=True
            )
    rows = []
    names = {"ours": "magtkd, cost_aware_tpe", "peer": "Ray Tune, OptunaSearch, ASHA"}
    for variant, name in names.items():
        own = [one for one in runs if one["variant"] == variant]
        mean = functools.partial(_mean, own)
        means = [statistics.fmean(one["fresh"]) for one in own]
        rows.append(
            [
                name,
                f"{100 * mean('dev'):.2f}",
                f"{100 * np.mean(means):.2f} +- {100 * np.std(means, ddof=1):.2f}",
                mean("trials"),
                mean("students"),
                mean("stage_seconds"),
                mean("seconds"),
            ]
        )
    columns = [
        "search",
        "best dev",
        "its mean on fresh seeds",
        "trials",
        "students trained",
        "stage-seconds",
        "seconds",
    ]
    common.publish("search on MOSI", result, columns, rows, options.out)


def _mean(runs: list[dict[str, Any]], name: str) -> float:
    return statistics.fmean(float(one[name]) for one in runs)


if __name__ == "__main__":
    main()
