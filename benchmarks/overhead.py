"""What a trial costs besides its training: a sweep over stages that train nothing, against a
trivial function in plain Ray Tune with the same number of trials at a time.

    python benchmarks/overhead.py
    python benchmarks/overhead.py --trials 40 --rounds 1
    python benchmarks/overhead.py --reports

With `--reports`, how many reports of epochs a second: 8 trials of 200 epochs, all at a time. From
the first report to the last, since trials come up before that. `--scheduler median` decides after
every epoch, so that no trial hands over several reports at once; plain Ray Tune stays without.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import statistics
import time
from argparse import Namespace
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import common
from stub_stages import StubTrainer

TARGET = 2.0
NEVER_STOP = {"min_samples": 1000}
METRICS = ("train/loss", "dev/loss", "dev/accuracy", "dev/weighted_f1")


@dataclass(frozen=True)
class Size:
    """How much is run."""

    trials: int = 500
    epochs: int = 1
    concurrent: int = 2
    scheduler: str = "fifo"


REPORTS = Size(trials=8, epochs=200, concurrent=8)


def plain_ray(size: Size) -> dict[str, Any]:
    """Trials of a trivial function in Ray Tune as it comes, its own logging included."""
    import ray
    import ray.tune as ray_tune

    num_epochs, times = size.epochs, list[float]()

    def trainable(config: dict[str, float]) -> None:
        metrics = dict.fromkeys(METRICS, config["fusion.learning_rate"])
        for epoch in range(1, num_epochs + 1):
            ray_tune.report({**metrics, "epoch": epoch})

    class Times(ray_tune.Callback):  # type: ignore[misc]
        def on_trial_result(self, *args: Any, **info: Any) -> None:
            times.append(time.perf_counter())

        def __getstate__(self) -> dict[str, Any]:
            return {}

    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="error")
    with common.scratch() as storage:
        started = time.perf_counter()
        results = ray_tune.Tuner(
            ray_tune.with_resources(trainable, {"cpu": min(1.0, 2 / size.concurrent)}),
            param_space={"fusion.learning_rate": ray_tune.loguniform(1e-5, 1e-1)},
            tune_config=ray_tune.TuneConfig(
                num_samples=size.trials, max_concurrent_trials=size.concurrent, reuse_actors=True
            ),
            run_config=ray_tune.RunConfig(storage_path=str(storage), callbacks=[Times()]),
        ).fit()
        seconds = time.perf_counter() - started
    ray.shutdown()
    assert len(results) == size.trials
    assert not results.errors
    assert len(times) >= size.trials * size.epochs
    return {"seconds": seconds, "seconds_of_reports": times[-1] - times[0]}


def magtkd(size: Size, tracked: bool) -> dict[str, Any]:
    """The same number of trials of stub stages, none of which shares its fusion with another."""
    sweep = common.sweep_with(
        "quickstart_sweep.yaml",
        ["name=overhead", "data.synthetic.num_dialogues=3", f"fusion.epochs={size.epochs}"],
        search={
            "sampler": "random",
            "num_trials": size.trials,
            "max_concurrent": size.concurrent,
        },
        scheduler={"kind": size.scheduler} | ({} if size.scheduler == "fifo" else NEVER_STOP),
        space={"fusion.learning_rate": {"float": [1e-5, 1e-1], "log": True}},
    )
    with common.scratch() as storage:
        run = common.run_timed(
            sweep,
            storage,
            trainer=StubTrainer(),
            tracking_uri=f"sqlite:///{storage}/mlflow.db" if tracked else "",
        )
    assert run.state.count() == {"completed": size.trials}, run.state.count()
    assert run.summary()["stages"]["fusion"]["trained"] == size.trials
    times = [report.time for trial in run.state.trials.values() for report in trial.reports]
    assert len(times) == size.trials * size.epochs
    return run.summary() | {"seconds_of_reports": (max(times) - min(times)) / 1000}


VARIANTS: dict[str, Callable[[Size], dict[str, Any]]] = {
    "plain Ray Tune": plain_ray,
    "magtkd": functools.partial(magtkd, tracked=False),
    "magtkd, tracking": functools.partial(magtkd, tracked=True),
}


def publish_reports(result: dict[str, Any], size: Size, options: Namespace) -> None:
    """The table of `--reports`."""
    num_reports, (plain, *_) = size.trials * size.epochs, VARIANTS

    def a_second(one: dict[str, dict[str, Any]], name: str) -> float:
        return float(num_reports / one[name]["seconds_of_reports"])

    rounds = result["rounds"]
    rows = [
        [
            name,
            statistics.median(a_second(one, name) for one in rounds),
            statistics.median(a_second(one, name) / a_second(one, plain) for one in rounds),
        ]
        for name in VARIANTS
    ]
    result["ratios"] = {name: ratio for name, _, ratio in rows}
    columns = ["variant", "reports a second", "median ratio (at least 1)"]
    common.publish("reports a second", result, columns, rows, options.out)


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--reports", action="store_true", help="of many epochs in few trials")
    parser.add_argument("--scheduler", choices=("fifo", "median"), default="fifo")
    options = parser.parse_args()
    if options.child:
        child = json.loads(options.child)
        with contextlib.redirect_stdout(io.StringIO()):
            answer = VARIANTS[child["variant"]](Size(**child["size"]))
        print(json.dumps(answer))
        return
    size = REPORTS if options.reports else Size(trials=options.trials)
    size = replace(size, scheduler=options.scheduler)
    result: dict[str, Any] = {"machine": common.machine(), **asdict(size)}
    rounds = result["rounds"] = common.alternate(
        {
            name: functools.partial(
                common.in_process, __file__, {"variant": name, "size": asdict(size)}
            )
            for name in VARIANTS
        },
        options.rounds,
    )
    if options.reports:
        publish_reports(result, size, options)
        return
    plain, *ours = VARIANTS
    result["ratios"] = {name: common.median_ratio(rounds, name, plain) for name in ours}
    result["target"] = TARGET
    rows = [
        [
            name,
            common.median_seconds(rounds, name),
            common.median_seconds(rounds, name) / options.trials,
            result["ratios"].get(name, 1.0),
        ]
        for name in VARIANTS
    ]
    columns = ["variant", "seconds", "seconds a trial", "median ratio (at most 2)"]
    common.publish("overhead", result, columns, rows, options.out)


if __name__ == "__main__":
    main()
