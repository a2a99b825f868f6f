"""What a trial's process costs before it does anything: trials that only come up, ours against a
bare `ray.tune.Trainable` in Ray Tune.

    python benchmarks/trial_cost.py
    python benchmarks/trial_cost.py --trials 64 --rounds 1

The trials come up together and then wait. Memory is each process's RSS and PSS (which shares out
what processes have in common); the time of a core is what its process has used until then; both are
medians over the trials. The first trial's and the last trial's seconds count from the start of Ray
Tune.
"""

from __future__ import annotations

import compileall
import contextlib
import functools
import io
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

import common

TARGET = 1.1
FIGURES = ("rss_mb", "pss_mb", "cpu_seconds", "first_seconds", "last_seconds")
BARE, OURS = "bare Trainable", "magtkd"


def measure_self(folder: str, num_trials: int) -> None:
    """Write down what this process has cost so far, then wait until all trials have."""
    import psutil

    memory = psutil.Process().memory_full_info()
    times = psutil.Process().cpu_times()
    measured = {
        "rss_mb": memory.rss / 1e6,
        "pss_mb": memory.pss / 1e6,
        "cpu_seconds": times.user + times.system,
        "time": time.time(),
    }
    own = Path(folder, f"{os.getpid()}.json")
    own.with_suffix(".part").write_text(json.dumps(measured))
    own.with_suffix(".part").rename(own)
    while len(list(Path(folder).glob("*.json"))) < num_trials:
        time.sleep(0.2)


def trainable_of(variant: str, folder: str, num_trials: int) -> Any:
    """A trainable whose first step measures its process and ends the trial."""
    import ray.tune as ray_tune

    if variant == BARE:

        class Bare(ray_tune.Trainable):  # type: ignore[misc]
            def setup(self, config: dict[str, Any]) -> None:
                pass

            def step(self) -> dict[str, Any]:
                measure_self(folder, num_trials)
                return {"done": True}

        return Bare
    from tune.space import Candidate
    from tune.trial import Trial, TrialResult

    class Measured(Trial):
        def step(self) -> dict[str, Any]:
            measure_self(folder, num_trials)
            result = TrialResult(number=0, epoch=0, candidate=Candidate(values={}))
            return result.to_ray("") | {"done": True}

    return ray_tune.with_parameters(
        Measured, sweep_id="", metric="", stops=(), shares_sessions=False, max_failures=3
    )


def come_up(variant: str, trials: int) -> dict[str, Any]:
    """Run such trials, all at a time."""
    import ray
    import ray.tune as ray_tune

    from tune.cluster import ray_cluster

    with ray_cluster(), common.scratch() as folder, common.scratch() as storage:
        place = {f"node:{ray.util.get_node_ip_address()}": 0.001}
        started, began = time.time(), time.perf_counter()
        results = ray_tune.Tuner(
            ray_tune.with_resources(
                trainable_of(variant, str(folder), trials),
                ray_tune.PlacementGroupFactory([place]),
            ),
            param_space={"trial": 0, "fusion.learning_rate": ray_tune.uniform(0, 1)},
            tune_config=ray_tune.TuneConfig(
                num_samples=trials, max_concurrent_trials=trials, reuse_actors=True
            ),
            run_config=ray_tune.RunConfig(
                storage_path=str(storage),
                verbose=0,
                checkpoint_config=ray_tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        ).fit()
        seconds = time.perf_counter() - began
        assert not results.errors, results.errors
        measured = [json.loads(file.read_text()) for file in folder.glob("*.json")]
    assert len(measured) == trials
    times = [one.pop("time") - started for one in measured]
    medians = {name: statistics.median(one[name] for one in measured) for name in measured[0]}
    return medians | {
        "seconds": seconds,
        "first_seconds": min(times),
        "last_seconds": max(times),
    }


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--trials", type=int, default=8, help="all at a time")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if options.child:
        with contextlib.redirect_stdout(io.StringIO()):
            answer = come_up(**json.loads(options.child))
        print(json.dumps(answer))
        return
    # As an installation has it, and Ray has here; an editable one compiles at the first import.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    for package in ("magtkd", "tune"):
        compileall.compile_dir(Path(__file__).parent.parent / package, quiet=1)
    result: dict[str, Any] = {"machine": common.machine(), "trials": options.trials}
    rounds = result["rounds"] = common.alternate(
        {
            name: functools.partial(
                common.in_process, __file__, {"variant": name, "trials": options.trials}
            )
            for name in (BARE, OURS)
        },
        options.rounds,
    )
    result["target"] = TARGET
    rows = []
    for figure in FIGURES:
        bare, ours = (
            statistics.median(one[name][figure] for one in rounds) for name in (BARE, OURS)
        )
        ratio = statistics.median(one[OURS][figure] / one[BARE][figure] for one in rounds)
        rows.append([figure.replace("_", " "), bare, ours, ratio])
    columns = ["of a trial", BARE, OURS, "median ratio (at most 1.1)"]
    common.publish(f"{options.trials} trials that come up", result, columns, rows, options.out)


if __name__ == "__main__":
    main()
