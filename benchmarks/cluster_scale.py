"""How many trials a minute a cluster of more nodes does, and what driver, engine and everything
together spend on a trial. Nodes are raylets of one CPU each on this machine; stages sleep, so that
their CPU is not needed. The row at which all processes together keep the machine's cores busy is
where this machine, and not the sweep, is the limit.

    python benchmarks/cluster_scale.py
    python benchmarks/cluster_scale.py --nodes 1 2 4 8 16 32 --trials-per-node 8
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import common
import psutil
from stub_stages import StubSession, StubTrainer

from magtkd.config import Config
from magtkd.metrics import Report
from magtkd.store import Artifact

EPOCHS = 4
PARTS = ("driver", "engine", "all")


class SleepSession(StubSession):
    """A session whose epochs take time, and no CPU."""

    def __init__(self, inner: StubSession, seconds: float) -> None:
        self.__dict__ |= inner.__dict__
        self.seconds_per_epoch = seconds

    def advance(self) -> Report:
        time.sleep(self.seconds_per_epoch)
        return super().advance()

    def run(self, report: Callable[[Report], None] | None = None) -> dict[str, Any]:
        time.sleep(self.seconds_per_epoch)
        return super().run(report)


@dataclass(frozen=True)
class SleepTrainer(StubTrainer):
    """Opens such sessions."""

    seconds_per_epoch: float = 0.5

    def open_session(
        self, stage: str, config: Config, upstream: Mapping[str, Artifact]
    ) -> StubSession:
        """As `magtkd.pipeline.Trainer` has it."""
        return SleepSession(super().open_session(stage, config, upstream), self.seconds_per_epoch)


def cpu_seconds(process: psutil.Process) -> float:
    """Of a process that is alive; 0 for one that is gone."""
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)


class CpuSampler:
    """Samples the time of a core of this process and all below it, and of the engine alone, until
    closed; what a process has used until its last sample counts."""

    def __init__(self) -> None:
        self._driver, self._closed = psutil.Process(), threading.Event()
        self._used: dict[int, float] = {}
        self._engine = 0
        self._sample()
        self._before = self._used.copy()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._closed.wait(1.0):
            self._sample()

    def _sample(self) -> None:
        for process in (self._driver, *self._driver.children(recursive=True)):
            self._used[process.pid] = max(cpu_seconds(process), self._used.get(process.pid, 0.0))
            with contextlib.suppress(psutil.Error):
                if not self._engine and process.cmdline()[:1] == ["ray::Engine"]:
                    self._engine = process.pid

    def close(self) -> dict[str, float]:
        """Seconds of a core of the driver, of the engine, and of all."""
        self._closed.set()
        self._thread.join()
        self._sample()
        used = {pid: one - self._before.get(pid, 0.0) for pid, one in self._used.items()}
        return {
            "driver": used[self._driver.pid],
            "engine": used.get(self._engine, 0.0),
            "all": sum(used.values()),
        }


def sweep_on(num_nodes: int, num_trials: int, per_node: int) -> dict[str, Any]:
    """A sweep of fusions that sleep, so many at a time on each node."""
    import ray
    from ray.cluster_utils import Cluster

    sweep = common.sweep_with(
        "quickstart_sweep.yaml",
        ["name=scale", "data.synthetic.num_dialogues=3", f"fusion.epochs={EPOCHS}"],
        search={
            "sampler": "random",
            "num_trials": num_trials,
            "max_concurrent": per_node * num_nodes,
        },
        scheduler={"kind": "fifo"},
        space={"fusion.learning_rate": {"float": [1e-5, 1e-1], "log": True}},
    )
    head = {"num_cpus": 0, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    for number in range(num_nodes):
        cluster.add_node(num_cpus=1, node_ip_address=f"127.0.6.{number + 1}")
    ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
    try:
        with common.scratch() as storage:
            sampler = CpuSampler()
            run = common.run_timed(sweep, storage, trainer=SleepTrainer(), tracking_uri="")
            used = sampler.close()
    finally:
        ray.shutdown()
        cluster.shutdown()
    trials = run.state.trials.values()
    assert run.state.count() == {"completed": num_trials}, run.state.count()
    first = min(trial.reports[0].time for trial in trials)
    last = max(trial.ended_time or 0 for trial in trials)
    seconds = (last - first) / 1000
    return {
        "seconds": seconds,
        "trials_per_minute": 60 * num_trials / seconds,
        **{f"{name}_cpu_per_trial": one / num_trials for name, one in used.items()},
        "cores_busy": used["all"] / run.seconds,
    }


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--trials-per-node", type=int, default=10)
    parser.add_argument("--at-a-time", type=int, default=2, help="trials at a time, for each node")
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    if options.child:
        child = json.loads(options.child)
        with contextlib.redirect_stdout(io.StringIO()):
            answer = sweep_on(child["nodes"], child["trials"], child["per_node"])
        print(json.dumps(answer))
        return
    result: dict[str, Any] = {"machine": common.machine()}
    variants = {
        f"{number} nodes": functools.partial(
            common.in_process,
            __file__,
            {
                "nodes": number,
                "trials": number * options.trials_per_node,
                "per_node": options.at_a_time,
            },
        )
        for number in options.nodes
    }
    result["rounds"] = rounds = common.alternate(variants, options.rounds)
    first = rounds[0][next(iter(variants))]["trials_per_minute"]
    columns = [
        "nodes of one CPU",
        "trials a minute",
        "times the first",
        *(f"CPU s a trial: {name}" for name in PARTS),
        "cores busy",
    ]
    rows = [
        [
            name,
            one["trials_per_minute"],
            one["trials_per_minute"] / first,
            *(one[f"{part}_cpu_per_trial"] for part in PARTS),
            one["cores_busy"],
        ]
        for found in rounds
        for name, one in found.items()
    ]
    common.publish("cluster_scale", result, columns, rows, options.out)


if __name__ == "__main__":
    main()
