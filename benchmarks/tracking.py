"""What recording in MLflow costs a sweep: without, with ours, and with Ray's MLflowLoggerCallback.

    python benchmarks/tracking.py
    python benchmarks/tracking.py --data mosi.parquet
    python benchmarks/tracking.py --trials 4 --rounds 1

Each store is a fresh SQLite file. Making its tables takes the same for both and is told apart. For
Ray's callback the sweep runs without ours, and `ray.tune.RunConfig` is replaced in the benchmark's
process by one that adds the callback: Ray logs what the same trials report.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import common

TARGET = 1.1
MIGRATE = "import sys, mlflow; mlflow.MlflowClient(sys.argv[1]).search_experiments(max_results=1)"
OFF, OURS, RAYS = "off", "on", "MLflowLoggerCallback"


def address(store: Path) -> str:
    return f"sqlite:///{store}"


def make_store(store: Path) -> float:
    """Make a store with its tables, in a process of its own; the seconds that took."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", MIGRATE, address(store)], check=True, capture_output=True)
    return time.perf_counter() - started


def add_rays_callback(uri: str) -> None:
    """From now on each of Ray Tune's runs is logged by Ray's own callback."""
    import ray.tune as ray_tune
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    class LoggedRunConfig(ray_tune.RunConfig):  # type: ignore[misc]
        def __init__(self, callbacks: list[Any], **options: Any) -> None:
            logger = MLflowLoggerCallback(tracking_uri=uri, experiment_name="tracking")
            super().__init__(callbacks=[*callbacks, logger], **options)

    ray_tune.RunConfig = LoggedRunConfig


def num_logged(uri: str) -> dict[str, int]:
    """How many runs a store has, and how many points of one metric."""
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=uri)
    ids = [one.experiment_id for one in client.search_experiments()]
    runs = client.search_runs(ids, max_results=10_000)
    points = [client.get_metric_history(run.info.run_id, "dev/loss") for run in runs]
    return {"runs": len(runs), "points": sum(map(len, points))}


def sweep_once(variant: str, trials: int, epochs: int, data: str, store: str) -> dict[str, Any]:
    """Run the sweep with one kind of tracking on a copy of a store that has its tables."""
    sweep = common.sweep_with(
        "mosi.yaml" if data else "quickstart.yaml",
        ["name=tracking", f"fusion.epochs={epochs}", *([f"data.path={data}"] if data else [])],
        search={"sampler": "random", "num_trials": trials, "max_concurrent": 2},
        scheduler={"kind": "fifo"},
        space={"fusion.learning_rate": {"float": [1e-4, 1e-2], "log": True}},
    )
    with common.scratch() as storage:
        own = storage / "mlflow.db"
        shutil.copy(store, own)
        if variant == RAYS:
            add_rays_callback(address(own))
        tracking_uri = address(own) if variant == OURS else ""
        run = common.run_timed(sweep, storage, tracking_uri=tracking_uri)
        logged = {} if variant == OFF else num_logged(address(own))
    assert run.state.count() == {"completed": trials}, run.state.count()
    if logged:
        assert logged["points"] == trials * epochs, logged
    return run.summary() | {"logged": logged}


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--data", default="", help="MOSI as Parquet; a made-up corpus without")
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if options.child:
        with contextlib.redirect_stdout(io.StringIO()):
            answer = sweep_once(**json.loads(options.child))
        print(json.dumps(answer))
        return
    result: dict[str, Any] = {"machine": common.machine(), "trials": options.trials}
    result["epochs"], result["data"] = options.epochs, "MOSI" if options.data else "synthetic"
    with common.scratch() as folder:
        store = folder / "mlflow.db"
        result["seconds_to_make_a_store"] = make_store(store)
        child = {"trials": options.trials, "epochs": options.epochs, "data": options.data}
        rounds = common.alternate(
            {
                name: functools.partial(
                    common.in_process, __file__, child | {"variant": name, "store": str(store)}
                )
                for name in (OFF, OURS, RAYS)
            },
            options.rounds,
        )
    result["rounds"], result["target"] = rounds, TARGET
    result["ratios"] = {name: common.median_ratio(rounds, name, OFF) for name in (OURS, RAYS)}
    rows = [
        [name, common.median_seconds(rounds, name), result["ratios"].get(name, 1.0)]
        for name in (OFF, OURS, RAYS)
    ]
    rows.append(["making a store's tables, once", result["seconds_to_make_a_store"], ""])
    columns = ["MLflow", "seconds", "median ratio (ours: at most 1.1)"]
    title = f"tracking ({result['data']}, {options.trials} trials x {options.epochs} epochs)"
    common.publish(title, result, columns, rows, options.out)


if __name__ == "__main__":
    main()
