"""How many trials a minute a cluster of more nodes does, and what the driver spends on a
trial. Nodes are raylets of one CPU each on this machine; stages sleep, so that their CPU is not
needed.

    python benchmarks/cluster_scale.py
    python benchmarks/cluster_scale.py --nodes 1 2 4 8 16 --trials-per-node 8
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
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
    times = process.cpu_times()
    return float(times.user + times.system)


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
    driver = psutil.Process()
    try:
        with common.scratch() as storage:
            before = cpu_seconds(driver)
            run = common.run_timed(sweep, storage, trainer=SleepTrainer(), tracking_uri="")
            used = cpu_seconds(driver) - before
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
        "driver_cpu_per_trial": used / num_trials,
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
    columns = ["nodes of one CPU", "trials a minute", "times the first", "driver's CPU s a trial"]
    rows = [
        [
            name,
            one["trials_per_minute"],
            one["trials_per_minute"] / first,
            one["driver_cpu_per_trial"],
        ]
        for found in rounds
        for name, one in found.items()
    ]
    common.publish("cluster_scale", result, columns, rows, options.out)


if __name__ == "__main__":
    main()
