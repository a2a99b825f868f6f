"""What recording in MLflow costs a sweep: without, with ours, and with Ray's MLflowLoggerCallback.

    python benchmarks/tracking.py
    python benchmarks/tracking.py --data mosi.parquet
    python benchmarks/tracking.py --trials 4 --rounds 1
    python benchmarks/tracking.py --concurrent 8 --server --latency 0.2

Each store is a fresh SQLite file. Making its tables takes the same for both and is shown apart. For
Ray's callback the sweep runs without ours, and `ray.tune.RunConfig` is replaced in the benchmark's
process by one that adds the callback: Ray logs what the same trials report.

With `--server` the store is a real `mlflow server` on this machine, which all sweeps share, and
whose answers take `--latency` seconds longer. Ray's callback, which waits for some twenty answers
at each report, is left out.

Two ratios: until the last trial has ended, and of the whole command, MLflow's catching up at the
end included.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import common
from tracking_server import tracking_server

TARGET = 1.1
MIGRATE = "import sys, mlflow; mlflow.MlflowClient(sys.argv[1]).search_experiments(max_results=1)"
OFF, OURS, RAYS = "off", "on", "MLflowLoggerCallback"
EXPERIMENT = "tracking"
SHOWN = ("trials", "epochs", "concurrent", "server", "latency")


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
            logger = MLflowLoggerCallback(tracking_uri=uri, experiment_name=EXPERIMENT)
            super().__init__(callbacks=[*callbacks, logger], **options)

    ray_tune.RunConfig = LoggedRunConfig


def num_logged(uri: str, name: str) -> dict[str, int]:
    """How many runs a sweep has in a store, and how many points of one metric."""
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(name)
    runs = client.search_runs([experiment.experiment_id], max_results=10_000)
    points = [client.get_metric_history(run.info.run_id, "dev/loss") for run in runs]
    return {"runs": len(runs), "points": sum(map(len, points))}


def sweep_once(
    variant: str, trials: int, epochs: int, concurrent: int, data: str, store: str, server: str
) -> dict[str, Any]:
    """Run the sweep with one kind of tracking: in a server, or in a copy of an empty store."""
    # A name of its own, since a server keeps what it was sent.
    name = f"{EXPERIMENT}-{os.getpid()}" if server else EXPERIMENT
    sweep = common.sweep_with(
        "mosi.yaml" if data else "quickstart.yaml",
        [f"name={name}", f"fusion.epochs={epochs}", *([f"data.path={data}"] if data else [])],
        search={"sampler": "random", "num_trials": trials, "max_concurrent": concurrent},
        scheduler={"kind": "fifo"},
        space={"fusion.learning_rate": {"float": [1e-4, 1e-2], "log": True}},
    )
    with common.scratch() as storage:
        own = storage / "mlflow.db"
        shutil.copy(store, own)
        uri = server or address(own)
        if variant == RAYS:
            add_rays_callback(uri)
        run = common.run_timed(sweep, storage, tracking_uri=uri if variant == OURS else "")
        logged = {} if variant == OFF else num_logged(uri, name)
    assert run.state.count() == {"completed": trials}, run.state.count()
    if logged:
        assert logged["points"] == trials * epochs, logged
    ended = max(trial.ended_time or 0 for trial in run.state.trials.values())
    until_last = (ended - run.state.opened_time) / 1000
    return run.summary() | {"logged": logged, "seconds_to_last_trial": until_last}


def options_of(arguments: Sequence[str] | None = None) -> Namespace:
    parser = common.arguments(__doc__)
    parser.add_argument("--data", default="", help="MOSI as Parquet; a made-up corpus without")
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--concurrent", type=int, default=2, help="trials at once")
    parser.add_argument("--server", action="store_true", help="send to a real mlflow server")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds that it takes longer")
    return parser.parse_args(arguments)


def compare(options: Namespace, store: Path, server: str) -> list[dict[str, dict[str, Any]]]:
    """Each variant in each round, in a process of its own."""
    child = {name: getattr(options, name) for name in ("trials", "epochs", "concurrent", "data")}
    child |= {"store": str(store), "server": server}
    return common.alternate(
        {
            name: functools.partial(common.in_process, __file__, child | {"variant": name})
            for name in ((OFF, OURS) if server else (OFF, OURS, RAYS))
        },
        options.rounds,
    )


def median_ratio_to_last(rounds: Sequence[dict[str, dict[str, Any]]], name: str) -> float:
    """As `common.median_ratio`, until the last trial has ended."""
    key = "seconds_to_last_trial"
    return float(statistics.median(one[name][key] / one[OFF][key] for one in rounds))


def main() -> None:
    options = options_of()
    if options.child:
        with contextlib.redirect_stdout(io.StringIO()):
            answer = sweep_once(**json.loads(options.child))
        print(json.dumps(answer))
        return
    result: dict[str, Any] = {"machine": common.machine()}
    result |= {name: getattr(options, name) for name in SHOWN}
    result["data"] = "MOSI" if options.data else "synthetic"
    with common.scratch() as folder, contextlib.ExitStack() as stack:
        store = folder / "mlflow.db"
        result["seconds_to_make_a_store"] = make_store(store)
        server = ""
        if options.server:
            server = stack.enter_context(tracking_server(folder, options.latency))
        rounds = compare(options, store, server)
    names = list(rounds[0])
    result["rounds"], result["target"] = rounds, TARGET
    result["ratios"] = {name: common.median_ratio(rounds, name, OFF) for name in names}
    result["ratios_to_last_trial"] = {name: median_ratio_to_last(rounds, name) for name in names}
    rows = [
        [
            name,
            common.median_seconds(rounds, name),
            result["ratios"][name],
            result["ratios_to_last_trial"][name],
        ]
        for name in names
    ]
    rows.append(["making a store's tables, once", result["seconds_to_make_a_store"], "", ""])
    columns = ["MLflow", "seconds", "median ratio (ours: at most 1.1)", "until the last trial"]
    place = f", server, {options.latency} s" if options.server else ""
    size = f"{options.trials} trials x {options.epochs} epochs, {options.concurrent} at once"
    common.publish(
        f"tracking ({result['data']}, {size}{place})", result, columns, rows, options.out
    )


if __name__ == "__main__":
    main()
