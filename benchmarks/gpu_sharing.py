"""How many processes load torch in a sweep that shares one GPU: a whole one for each teacher, a
quarter for fusion. The GPU is only declared to Ray. A process that loads torch and is ended before
it did any work is waste.

    python benchmarks/gpu_sharing.py
    python benchmarks/gpu_sharing.py --against CHECKOUT     # another version in the same run
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import common
import psutil

SCRIPT = Path(__file__).resolve()
SECONDS_BETWEEN_LOOKS = 0.03
WORK = ("train", "open", "advance")


class Census:
    """Looks at the workers of this process's Ray while a block runs."""

    def __init__(self) -> None:
        self.loaded: set[int] = set()
        self.worked: set[int] = set()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look_on, daemon=True)

    def __enter__(self) -> Census:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _look_on(self) -> None:
        me = psutil.Process()
        while not self._is_over.wait(SECONDS_BETWEEN_LOOKS):
            for process in me.children(recursive=True):
                with contextlib.suppress(psutil.Error, OSError):
                    self._look(process)

    def _look(self, process: psutil.Process) -> None:
        title = " ".join(process.cmdline())
        if not title.startswith("ray::Worker"):
            return
        if any(title.startswith(f"ray::Worker.{call}") for call in WORK):
            self.worked.add(process.pid)
        if process.pid not in self.loaded:
            maps = Path(f"/proc/{process.pid}/maps").read_text(encoding="utf-8")
            if "libtorch" in maps:
                self.loaded.add(process.pid)


def sweep_once(num_teachers: int) -> dict[str, Any]:
    """A sweep of so many teachers, four fusions each."""
    import ray

    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    share = {"cpu": 0.25, "gpu": 0.25}
    sweep = common.sweep_with(
        "quickstart_sweep.yaml",
        ["name=gpu", "fusion.epochs=30", "teacher.epochs=5"],
        search={"sampler": "grid", "num_trials": 4 * num_teachers, "max_concurrent": 6},
        scheduler={"kind": "fifo"},
        space={
            "teacher.hidden_dim": {"choice": [16 + number for number in range(num_teachers)]},
            "fusion.dropout": {"choice": [0.1, 0.2, 0.3, 0.4]},
        },
        resources={"teacher": {"gpu": 1}, "audio": share, "video": share, "fusion": share},
    )
    ray.init(
        address="local",
        num_cpus=4,
        num_gpus=1,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
    )
    started = time.perf_counter()
    with Census() as census, common.scratch() as storage:
        run = common.run_timed(sweep, storage, tracking_uri="")
        assert run.state.count() == {"completed": 4 * num_teachers}, run.state.count()
    ray.shutdown()
    return {
        "seconds": time.perf_counter() - started,
        "loaded": len(census.loaded),
        "unused": len(census.loaded - census.worked),
    }


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--teachers", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--against", type=Path, metavar="CHECKOUT")
    options = parser.parse_args()
    if options.child:
        print(json.dumps(sweep_once(json.loads(options.child)["teachers"])))
        return
    result: dict[str, Any] = {"machine": common.machine(), "teachers": options.teachers}
    checkouts = {"this version": SCRIPT.parent.parent}
    if options.against is not None:
        checkouts = {"the other version": options.against.resolve()} | checkouts
    variants = {
        name: functools.partial(_in, path, options.teachers) for name, path in checkouts.items()
    }
    result["rounds"] = rounds = common.alternate(variants, options.rounds)
    columns = ["variant", "seconds", "processes that loaded torch", "of these without any work"]
    rows = [
        [name, one["seconds"], one["loaded"], one["unused"]]
        for found in rounds
        for name, one in found.items()
    ]
    common.publish("gpu_sharing", result, columns, rows, options.out)


def _in(checkout: Path, num_teachers: int) -> dict[str, Any]:
    os.environ["PYTHONPATH"] = str(checkout)
    os.chdir(checkout)  # Ray's workers look there first
    return common.in_process(str(SCRIPT), {"teachers": num_teachers})


if __name__ == "__main__":
    main()
