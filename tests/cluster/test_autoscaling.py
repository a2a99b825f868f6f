"""A cluster that grows and shrinks: Ray's own autoscaler, whose nodes are raylets on this machine
with GPUs that are only declared. In a network of its own, since the provider insists on a port."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tune.ledger import SweepLayout, read_sweep

pytestmark = [pytest.mark.cluster, pytest.mark.ray, pytest.mark.slow]

MAX_NODES = 4
HEAD = "ray.head.default"  # the provider knows its head by this name alone
AUTOSCALER = {
    "cluster_name": "grows",
    "max_workers": MAX_NODES,
    "upscaling_speed": 100.0,
    "idle_timeout_minutes": 0.1,
    "provider": {
        "type": "fake_multinode",
        "use_node_id_as_ip": True,
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
    },
    "available_node_types": {
        HEAD: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "gpu": {
            "resources": {"CPU": 1, "GPU": 1},
            "node_config": {},
            "min_workers": 0,
            "max_workers": MAX_NODES,
        },
    },
    "head_node_type": HEAD,
    **{name: {} for name in ("auth", "docker", "file_mounts")},
    **{
        name: []
        for name in (
            "initialization_commands",
            "setup_commands",
            "head_setup_commands",
            "worker_setup_commands",
            "head_start_ray_commands",
            "worker_start_ray_commands",
            "cluster_synced_files",
            "rsync_exclude",
            "rsync_filter",
        )
    },
    "file_mounts_sync_continuously": False,
}
# Writes how many nodes beside the head there are, whenever that changes; until told to stop.
MONITOR = """
import json, pathlib, sys, time, ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="error")
last = None
while not pathlib.Path("stop").exists():
    number = sum(node["Alive"] for node in ray.nodes()) - 1
    if number != last:
        with open("nodes.jsonl", "a") as file:
            print(json.dumps(number), file=file)
        last = number
    if number == 0 and pathlib.Path("over").exists():
        break
    time.sleep(0.5)
"""
SCRIPT = """
ip link set lo up
ray start --head --port=6379 --num-cpus=0 --autoscaling-config=autoscaler.yaml \
    --include-dashboard=false --temp-dir="$RAY_DIR" --object-store-memory=100000000 \
    --node-ip-address=127.0.0.1 >head.txt 2>&1 || exit 9
timeout 300 python monitor.py 127.0.0.1:6379 >monitor.txt 2>&1 &
for _ in $(seq 300); do [ -s nodes.jsonl ] && break; sleep 0.2; done
RAY_ADDRESS=127.0.0.1:6379 python -m tune.cli sweep sweep.yaml --no-tracking >sweep.txt 2>&1
code=$?
touch over
wait
exit $code
"""


def in_a_network_of_its_own(folder: Path, ray_dir: Path) -> int:
    """Run the script; all that it started ends with it."""
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "RAY_DIR": str(ray_dir),
        "RAY_FAKE_CLUSTER": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_AUTH_MODE": "token",
        "RAY_USAGE_STATS_ENABLED": "0",
        # The second version of the autoscaler does not know this provider's nodes again.
        "RAY_enable_autoscaler_v2": "0",
    }
    flags = ["--net", "--pid", "--fork", "--mount-proc", "--kill-child"]
    command = ["unshare", *flags, "bash", "-c", SCRIPT]
    return subprocess.run(command, cwd=folder, env=environment, timeout=400, check=False).returncode


STAGE = {"epochs": 20, "hidden_dim": 8}
SWEEP = {
    "name": "grows",
    "data": {
        "synthetic": {
            "num_dialogues": 20,
            "mean_length": 5,
            "num_emotions": 3,
            "text_dim": 7,
            "audio_dim": 5,
            "video_dim": 3,
        }
    },
    "teacher": STAGE,
    "audio": STAGE,
    "video": STAGE,
    "fusion": STAGE | {"num_heads": 2, "model": "magt"},
    "space": {
        "teacher.hidden_dim": {"choice": [8, 9, 10, 11]},
        "fusion.dropout": {"choice": [0.1, 0.3]},
    },
    "search": {"sampler": "grid", "num_trials": 8, "max_concurrent": 8},
    "resources": {
        **{stage: {"gpu": 1} for stage in ("teacher", "audio", "video")},
        "fusion": {"gpu": 0.5, "cpu": 0.5},
        "idle_seconds": 3,
        "node_types": {"gpu": {"cpu": 1, "gpu": 1}},
    },
}


def test_from_no_node_to_four_and_back(tmp_path):
    (tmp_path / "autoscaler.yaml").write_text(yaml.safe_dump(AUTOSCALER))
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(SWEEP))
    (tmp_path / "monitor.py").write_text(MONITOR)
    ray_dir = Path("/tmp", f"rg{os.getpid()}")  # the paths of Ray's sockets must be short
    try:
        code = in_a_network_of_its_own(tmp_path, ray_dir)
    finally:
        shutil.rmtree(ray_dir, ignore_errors=True)
    shown = (tmp_path / "sweep.txt").read_text()
    assert code == 0, shown
    numbers = [json.loads(line) for line in (tmp_path / "nodes.jsonl").read_text().splitlines()]
    assert numbers[0] == 0
    assert max(numbers) == MAX_NODES
    assert numbers[-1] == 0
    state = read_sweep(SweepLayout(tmp_path / "magtkd-results", "grows"))
    assert state.count() == {"completed": 8}
    trained = [
        (stage, record.key)
        for trial in state.trials.values()
        for stage, record in trial.stages.items()
        if record.outcome == "trained"
    ]
    assert len(set(trained)) == len(trained)
    for trial in state.trials.values():
        assert (trial.stages["fusion"].device, trial.stages["fusion"].share) == ("GPU", 0.5)
