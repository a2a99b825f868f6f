"""Sweeps on several nodes, of which one dies: real raylets with their workers, on one machine."""

from __future__ import annotations

import contextlib
import threading
import time

import psutil
import pytest
from ray.cluster_utils import Cluster

from tune.selection import trial_config

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

NUM_EPOCHS = 40
# A dead raylet is noticed within two seconds instead of Ray's fifteen.
HEALTH = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 500,
    "health_check_failure_threshold": 4,
}


class Nodes:
    """A head without CPUs, where driver, trials and engine are, and nodes of one CPU each."""

    def __init__(self):
        self.cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "include_dashboard": False, "_system_config": HEALTH},
        )
        self._num_added = 0

    def add(self):
        # An address of its own: a trial asks for its driver's node by address.
        self._num_added += 1
        address = f"127.0.2.{self._num_added}"
        return self.cluster.add_node(num_cpus=1, node_ip_address=address)

    def kill_the_one_with(self, call):
        """Kill the raylet of a node whose worker is in this call, and wait for its end."""
        for node in list(self.cluster.worker_nodes):
            raylet = node.all_processes["raylet"][0].process
            beneath = psutil.Process(raylet.pid).children(recursive=True)
            if any(call in title(process) for process in beneath):
                raylet.kill()
                raylet.wait()
                self.cluster.remove_node(node, allow_graceful=False)
                return True
        return False


def title(process):
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


@pytest.fixture(scope="module")
def nodes():
    found = Nodes()
    yield found
    found.cluster.shutdown()


@pytest.fixture
def killed_in(nodes):
    """Kills a node once its worker is in a call, and adds another where there is none left."""
    killed, stopping, threads = [], threading.Event(), []

    def watch(call):
        while not stopping.is_set():
            with contextlib.suppress(psutil.Error):
                if nodes.kill_the_one_with(call):
                    killed.append(call)
                    break
            time.sleep(0.02)
        if killed and not nodes.cluster.worker_nodes:
            nodes.add()

    def start(call):
        threads.append(threading.Thread(target=watch, args=(call,)))
        threads[0].start()
        return killed

    yield start
    stopping.set()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize(
    ("num_nodes", "call"),
    [(1, "ray::Worker.train"), (2, "ray::Worker.advance"), (2, "ray::Worker.train")],
    ids=["two raylets, upstream", "three raylets, fusion", "three raylets, upstream"],
)
def test_a_node_that_dies_takes_no_trial_along(
    num_nodes, call, nodes, killed_in, tmp_path, monkeypatch, tiny_sweep, run, dev_alone
):
    monkeypatch.setenv("RAY_ADDRESS", nodes.cluster.address)
    while len(nodes.cluster.worker_nodes) < num_nodes:
        nodes.add()
    sweep = tiny_sweep(
        "nodes",
        {"teacher.hidden_dim": {"choice": [8, 9]}, "fusion.dropout": {"choice": [0.1, 0.3]}},
        search={"sampler": "grid", "num_trials": 4},
        teacher={"epochs": 60},
        fusion={"epochs": NUM_EPOCHS, "model": "magt"},
    )
    killed = killed_in(call)
    state = run(sweep, tmp_path / "killed", tracking_uri="")
    assert killed == [call]
    assert state.closed == "finished"
    assert state.count() == {"completed": 4}
    for trial in state.trials.values():
        assert [report.epoch for report in trial.reports] == list(range(1, NUM_EPOCHS + 1))
        alone = dev_alone(trial_config(state, trial.number), tmp_path / "alone")
        assert trial.dev == alone
    trained = [
        (stage, record.key)
        for trial in state.trials.values()
        for stage, record in trial.stages.items()
        if record.outcome == "trained"
    ]
    assert len(set(trained)) == len(trained)
