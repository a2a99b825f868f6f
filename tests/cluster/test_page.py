"""Commands of docs/cluster.md that need no more than hosts: on one machine, and on a Ray cluster
that is there."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.cluster.page import commands
from tests.cluster.several_hosts import Hosts, wait_until
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
    command, *_ = commands("One machine")
    run(hosts, command)
    check_finished(hosts.folder / "magtkd-results")


def test_a_cluster_of_one_machine(hosts: Hosts) -> None:
    """Its Ray is there after the sweep, until Ctrl-C, which leaves another one alone."""
    shutil.copytree(EXPERIMENTS, hosts.folder / "experiments")
    _, start, sweep = commands("One machine")
    hosts.start_head()
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    head = hosts.start(1, "bash", "-c", f"exec {start}", PATH=path)
    is_up = ("bash", "-c", ": </dev/tcp/127.0.0.1/6390")
    wait_until(lambda: hosts.run(1, *is_up)[0] == 0, head, 60)
    run(hosts, sweep)
    check_finished(hosts.folder / "shared" / "magtkd")
    (own,) = [one for one in of_port(hosts, "6390") if "start" in one.cmdline()]
    own.send_signal(signal.SIGINT)
    head.communicate(timeout=60)
    end = time.monotonic() + 30
    while left := of_port(hosts, "6390"):
        assert time.monotonic() < end, left
        time.sleep(0.2)
    assert any("gcs_server" in one.name() for one in hosts.processes(1))


def of_port(hosts: Hosts, port: str) -> list[psutil.Process]:
    """The processes of the Ray whose head has a port: each has that in its command line."""
    found = []
    for process in hosts.processes(1):
        with contextlib.suppress(psutil.Error):
            if any(word.endswith(port) for word in process.cmdline()):
                found.append(process)
    return found


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
