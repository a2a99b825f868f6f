"""What a trial costs besides its training: a sweep over stages that train nothing, against a
trivial function in plain Ray Tune with the same number of trials at a time.

    python benchmarks/overhead.py
    python benchmarks/overhead.py --trials 40 --rounds 1
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import time
from collections.abc import Callable
from typing import Any

import common
from stub_stages import StubTrainer

TARGET = 2.0
MAX_CONCURRENT = 2


def plain_ray(num_trials: int) -> dict[str, Any]:
    """Trials of a trivial function in Ray Tune as it comes, its own logging included."""
    import ray
    import ray.tune as ray_tune

    def trainable(config: dict[str, float]) -> None:
        ray_tune.report({"dev/weighted_f1": config["fusion.learning_rate"], "epoch": 1})

    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="error")
    with common.scratch() as storage:
        started = time.perf_counter()
        results = ray_tune.Tuner(
            ray_tune.with_resources(trainable, {"cpu": 1}),
            param_space={"fusion.learning_rate": ray_tune.loguniform(1e-5, 1e-1)},
            tune_config=ray_tune.TuneConfig(
                num_samples=num_trials, max_concurrent_trials=MAX_CONCURRENT, reuse_actors=True
            ),
            run_config=ray_tune.RunConfig(storage_path=str(storage)),
        ).fit()
        seconds = time.perf_counter() - started
    ray.shutdown()
    assert len(results) == num_trials
    assert not results.errors
    return {"seconds": seconds}


def magtkd(num_trials: int, tracked: bool) -> dict[str, Any]:
    """The same number of trials of stub stages, none of which shares its fusion with another."""
    sweep = common.sweep_with(
        "quickstart_sweep.yaml",
        ["name=overhead", "data.synthetic.num_dialogues=3", "fusion.epochs=1"],
        search={"sampler": "random", "num_trials": num_trials, "max_concurrent": MAX_CONCURRENT},
        scheduler={"kind": "fifo"},
        space={"fusion.learning_rate": {"float": [1e-5, 1e-1], "log": True}},
    )
    with common.scratch() as storage:
        run = common.run_timed(
            sweep,
            storage,
            trainer=StubTrainer(),
            tracking_uri=f"sqlite:///{storage}/mlflow.db" if tracked else "",
        )
    assert run.state.count() == {"completed": num_trials}, run.state.count()
    assert run.summary()["stages"]["fusion"]["trained"] == num_trials
    return run.summary()


VARIANTS: dict[str, Callable[[int], dict[str, Any]]] = {
    "plain Ray Tune": plain_ray,
    "magtkd": functools.partial(magtkd, tracked=False),
    "magtkd, tracking": functools.partial(magtkd, tracked=True),
}


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if options.child:
        child = json.loads(options.child)
        with contextlib.redirect_stdout(io.StringIO()):
            answer = VARIANTS[child["variant"]](child["trials"])
        print(json.dumps(answer))
        return
    result: dict[str, Any] = {"machine": common.machine(), "trials": options.trials}
    rounds = common.alternate(
        {
            name: functools.partial(
                common.in_process, __file__, {"variant": name, "trials": options.trials}
            )
            for name in VARIANTS
        },
        options.rounds,
    )
    plain, *ours = VARIANTS
    result["rounds"] = rounds
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
