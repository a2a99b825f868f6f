"""Commands of docs/cluster.md that need no more than hosts: on one machine, and on a Ray cluster
that is there."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.cluster.page import commands
from tests.cluster.several_hosts import Hosts
from tune.ledger import SweepLayout, read_sweep

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


def run(hosts: Hosts, command: str) -> str:
    """Run a command on host 1, in a folder that has the repository's experiments."""
    command = re.sub("s3://bucket/|/shared/", f"{hosts.folder}/shared/", command)
    code, out, err = hosts.run(
        1,
        "bash",
        "-c",
        command,
        timeout=400,
        PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    )
    assert code == 0, f"{command}\n{out}{err}"
    return out


def check_finished(storage: Path) -> None:
    state = read_sweep(SweepLayout(storage, "quickstart"))
    assert state.closed == "finished"
    assert sum(state.count().values()) == 16
    assert state.count()["completed"] > 0


def test_one_machine(hosts: Hosts) -> None:
    shutil.copytree(EXPERIMENTS, hosts.folder / "experiments")
    for command in commands("One machine"):
        run(hosts, command)
    check_finished(hosts.folder / "magtkd-results")


def test_a_ray_cluster_that_is_there(hosts: Hosts) -> None:
    shutil.copytree(EXPERIMENTS, hosts.folder / "experiments")
    clips = hosts.folder / "shared" / "clips"
    clips.mkdir(parents=True)
    (clips / "a.wav").touch()  # an empty folder is what a mount leaves that failed
    hosts.start_head()
    hosts.start_node(2)
    hosts.start_node(3)
    doctor, sweep = commands("A Ray cluster that is there")
    shown = run(hosts, doctor)
    assert shown.count("sees the storage") == 3
    run(hosts, sweep)
    check_finished(hosts.folder / "shared" / "magtkd")
