"""Sweeps on clusters whose nodes differ, and on one that gets another node."""

from __future__ import annotations

import json
import time

import pytest
import yaml
from ray.cluster_utils import Cluster

from tune.driver.watch import INTERVAL_SECONDS, PATIENCE_SECONDS
from tune.ledger import SweepLayout, read_sweep

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

NUM_EPOCHS = 300


@pytest.fixture(scope="module")
def cluster():
    """A head without CPUs, where the driver is; nodes that a test adds stay for those after it."""
    found = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
    )
    yield found
    found.shutdown()


@pytest.fixture
def start(cluster, start_command, tmp_path):
    """Starts a sweep by the command line on the cluster."""

    def run(sweep):
        (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep.model_dump(mode="json")))
        arguments = ("sweep", "sweep.yaml", "--no-tracking")
        return start_command(*arguments, folder=tmp_path, RAY_ADDRESS=cluster.address)

    return run


def live(layout):
    try:
        return json.loads(layout.live_file.read_bytes())
    except (OSError, ValueError):
        return {}


def wait_for(process, condition, seconds=90):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.cluster
def test_a_sweep_waits_for_a_node_that_can_come(cluster, start, tmp_path, tiny_sweep):
    sweep = tiny_sweep(
        "waits",
        {"fusion.dropout": {"choice": [0.1, 0.2]}},
        search={"sampler": "grid", "num_trials": 2},
        resources={"node_types": {"cpu": {"cpu": 1}}},
    )
    layout = SweepLayout(tmp_path / "magtkd-results", "waits")
    driver = start(sweep)
    wait_for(driver, lambda: "of type cpu" in " ".join(live(layout).get("wanted", [])))
    time.sleep(PATIENCE_SECONDS + 2 * INTERVAL_SECONDS)  # what comes at once is not worth a line
    cluster.add_node(num_cpus=1, node_ip_address="127.0.3.1")
    _, shown = driver.communicate(timeout=120)
    assert driver.returncode == 0, shown
    assert "wait for a node of type cpu" in shown


def test_a_node_that_joins_takes_sessions_over(cluster, start, tmp_path, tiny_sweep, dev_alone):
    """All trials share the one worker when a second node comes; no stage is left to be trained, so
    only sessions that move can use it."""
    if not cluster.worker_nodes:
        cluster.add_node(num_cpus=1, node_ip_address="127.0.3.1")
    sweep = tiny_sweep(
        "joins",
        {"fusion.dropout": {"choice": [0.1, 0.2, 0.3, 0.4]}},
        search={"sampler": "grid", "num_trials": 4, "max_concurrent": 4},
        fusion={"epochs": NUM_EPOCHS, "model": "magt"},
    )
    layout = SweepLayout(tmp_path / "magtkd-results", "joins")
    driver = start(sweep)

    def all_hold():
        now = list(live(layout).get("trials", {}).values())
        return len(now) == 4 and all(one.startswith("trains fusion") for one in now)

    def on_two_nodes():
        return sum(node["workers"]["holding"] for node in live(layout).get("nodes", [])) == 2

    wait_for(driver, all_hold)
    assert live(layout)["workers"]["pending"] == 3  # what an autoscaler would see
    assert live(layout)["wanted"][0].startswith("3 workers of 1 CPU: wait for room for")
    cluster.add_node(num_cpus=1, node_ip_address="127.0.3.2")
    wait_for(driver, on_two_nodes)
    _, shown = driver.communicate(timeout=180)
    assert driver.returncode == 0, shown
    state = read_sweep(layout)
    assert state.count() == {"completed": 4}
    for trial in state.trials.values():
        assert [report.epoch for report in trial.reports] == list(range(1, NUM_EPOCHS + 1))
        assert trial.stages["fusion"].device == "CPU"
        assert trial.stages["fusion"].host
    for number in (0, 3):
        trial = state.trials[number]
        alone = dev_alone(trial.candidate.config(state.sweep.base), tmp_path / "alone")
        assert trial.dev == alone


def test_a_stage_that_fits_no_node_is_refused_before_the_sweep(
    cluster, start, tmp_path, tiny_sweep
):
    """On two nodes of one CPU each."""
    space = {"fusion.dropout": {"choice": [0.1, 0.2]}}
    driver = start(tiny_sweep("fits", space, resources={"fusion": {"cpu": 2}}))
    _, shown = driver.communicate(timeout=60)
    assert driver.returncode == 2, shown
    assert "resources.fusion.cpu: asks for 2 CPU, but the cluster's largest node" in shown
    assert not SweepLayout(tmp_path / "magtkd-results", "fits").folder.exists()
