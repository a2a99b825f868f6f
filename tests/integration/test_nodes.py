"""Sweeps on several nodes, of which one dies: real raylets with their workers, on one machine."""

from __future__ import annotations

import time

import psutil
import pytest
import yaml
from ray.cluster_utils import Cluster

from tune.ledger import SweepLayout, read_sweep

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

    def have(self, num_nodes):
        while len(self.cluster.worker_nodes) < num_nodes:
            # An address of its own: a trial asks for its driver's node by address.
            self._num_added += 1
            self.cluster.add_node(num_cpus=1, node_ip_address=f"127.0.2.{self._num_added}")

    def kill_the_one_with(self, call):
        """Kill the raylet of a node whose worker is in this call; whether there was one."""
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
def start(nodes, start_command, tmp_path):
    """Starts a sweep by the command line on these nodes."""

    def run(sweep):
        (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep.model_dump(mode="json")))
        arguments = ("sweep", "sweep.yaml", "--no-tracking")
        return start_command(*arguments, folder=tmp_path, RAY_ADDRESS=nodes.cluster.address)

    return run


@pytest.mark.parametrize(
    ("num_nodes", "call"),
    [(1, "ray::Worker.train"), (2, "ray::Worker.advance"), (2, "ray::Worker.train")],
    ids=["two raylets, upstream", "three raylets, fusion", "three raylets, upstream"],
)
def test_a_node_that_dies_takes_no_trial_along(
    num_nodes, call, nodes, start, tmp_path, tiny_sweep, dev_alone
):
    nodes.have(num_nodes)
    sweep = tiny_sweep(
        "nodes",
        {"teacher.hidden_dim": {"choice": [8, 9]}, "fusion.dropout": {"choice": [0.1, 0.3]}},
        search={"sampler": "grid", "num_trials": 4},
        teacher={"epochs": 60},
        fusion={"epochs": NUM_EPOCHS, "model": "magt"},
    )
    driver = start(sweep)
    while not nodes.kill_the_one_with(call):
        assert driver.poll() is None, driver.communicate()
        time.sleep(0.02)
    nodes.have(1)  # where that was the last one, another comes
    _, shown = driver.communicate(timeout=120)
    assert driver.returncode == 0, shown
    state = read_sweep(SweepLayout(tmp_path / "magtkd-results", "nodes"))
    assert state.closed == "finished"
    assert state.count() == {"completed": 4}
    for trial in state.trials.values():
        assert [report.epoch for report in trial.reports] == list(range(1, NUM_EPOCHS + 1))
        alone = dev_alone(trial.candidate.config(state.sweep.base), tmp_path / "alone")
        assert trial.dev == alone
    trained = [
        (stage, record.key)
        for trial in state.trials.values()
        for stage, record in trial.stages.items()
        if record.outcome == "trained"
    ]
    assert len(set(trained)) == len(trained)
