"""A cluster of several hosts: joined by its address, refused where it cannot do the work, and
quiet where one of them is lost."""

from __future__ import annotations

import sys
import sysconfig
import time
import venv
from pathlib import Path

import pytest

from tests.cluster.several_hosts import HEAD, NET, Hosts, wait_until, write_token
from tune.ledger import SweepLayout, Warned, read_events, read_sweep

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

RUN = ("sweep", "sweep.yaml", "--address", HEAD, "--no-tracking")
NOISE = ("Traceback", "state-dump", "grpc", "raylet)", "worker processes", ".cc:")


def check_quiet(*texts: str) -> None:
    for text in texts:
        assert not [word for word in NOISE if word in text], text


def only_line(result: tuple[int, str, str]) -> str:
    """The one line of a refusal."""
    code, out, err = result
    assert (code, out) == (2, "")
    assert err.count("\n") == 1, err
    return err


def completed(hosts: Hosts) -> int:
    state = read_sweep(SweepLayout(hosts.folder / "magtkd-results", "hosts"))
    assert state.closed == "finished"
    return state.count()["completed"]


def test_a_cluster_with_a_token_is_joined_by_its_address(hosts: Hosts, tmp_path: Path) -> None:
    """Without RAY_AUTH_MODE, as after any local Ray; a node's workers get the token, too."""
    token = write_token(hosts.home)
    hosts.start_head(RAY_AUTH_MODE="token")
    # The other host has it by another way than the driver.
    other = tmp_path / "other"
    other.mkdir()
    hosts.start_node(2, HOME=str(other), RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=token.read_text())
    hosts.write_sweep()
    code, out, err = hosts.magtkd(1, *RUN)
    assert code == 0, err
    check_quiet(out, err)
    assert completed(hosts) == 3
    assert token.stat().st_mode & 0o777 == 0o600

    shown = hosts.magtkd(1, "doctor", "--address", HEAD)[1]
    line = next(line for line in shown.splitlines() if "node h2" in line)
    assert line.startswith("ok ")
    assert f"{NET}.2, 1 CPU, 0 GPU" in line
    assert line.endswith("sees the storage")

    missing = only_line(hosts.magtkd(2, *RUN, "name=other", timeout=60, HOME=str(other)))
    assert f"{NET}.1:6379: asks for a token; copy ~/.ray/auth_token from where" in missing
    write_token(other)
    wrong = only_line(hosts.magtkd(2, *RUN, "name=other", timeout=60, HOME=str(other)))
    assert "does not accept the token in ~/.ray/auth_token; copy" in wrong
    named = only_line(hosts.magtkd(2, *RUN, "name=other", timeout=60, RAY_AUTH_TOKEN="0" * 64))
    assert "does not accept the token in RAY_AUTH_TOKEN; copy" in named


def test_an_address_where_no_host_is(hosts: Hosts) -> None:
    hosts.write_sweep()
    command = ("sweep", "sweep.yaml", "--address", f"{NET}.77:6379")
    for options in ((), ("--dry-run",)):
        line = only_line(hosts.magtkd(1, *command, *options, timeout=60))
        assert f"{NET}.77:6379: cannot be reached: " in line
    assert not (hosts.folder / "magtkd-results").exists()


def test_two_clusters_on_one_host(hosts: Hosts) -> None:
    hosts.start_head(num_cpus=1, port=6400)
    hosts.start_head(num_cpus=1)
    hosts.write_sweep()
    command = ("sweep", "sweep.yaml", "--address", "auto", "--dry-run")
    code, _, err = hosts.magtkd(1, *command)
    assert code == 0, err
    assert err == (
        f"--address auto: {NET}.1:6379, which was started last; also on this machine: "
        f"{NET}.1:6400\n"
    )


def test_a_host_with_a_folder_of_its_own(hosts: Hosts) -> None:
    """Nothing is trained, where half of it would be lost."""
    hosts.start_head()
    hosts.start_node(2)
    hosts.start_node(3)
    hosts.write_sweep()
    storage = hosts.folder / "magtkd-results"
    storage.mkdir()
    assert hosts.run(3, "mount", "-t", "tmpfs", "none", storage)[0] == 0
    line = only_line(hosts.magtkd(1, *RUN))
    assert f"node h3 ({NET}.3): does not see the storage {storage}: it has a folder" in line
    assert list(storage.iterdir()) == []


@pytest.mark.parametrize(("loss", "num_trials"), [("raylet killed", 6), ("link cut", 18)])
def test_a_host_that_is_lost(hosts: Hosts, loss: str, num_trials: int) -> None:
    """One line when it is lost and one when another comes; no trial is lost."""
    hosts.start_head()
    hosts.start_node(2)
    hosts.start_node(3)
    hosts.write_sweep(
        fusion={"epochs": 1000, "model": "magt"},
        search={"num_trials": num_trials},
    )
    driver = hosts.start(1, sys.executable, "-m", "tune.cli", *RUN)
    wait_until(lambda: hosts.is_busy(3, "ray::Worker.advance"), driver)
    if loss == "link cut":
        hosts.call("cut", 3)
        time.sleep(65)
        hosts.call("join", 3)
        time.sleep(10)  # its raylet finds out that it is given up, and ends
    else:
        hosts.raylet(3).kill()
        time.sleep(10)
    hosts.start_node(3)
    out, err = driver.communicate(timeout=600)
    assert driver.returncode == 0, err
    check_quiet(out, err)
    assert completed(hosts) == num_trials
    lines = [line for line in err.splitlines() if not line.startswith("trial ")]
    gone = f"node h3 ({NET}.3) is gone; its work is repeated elsewhere"
    joined = f"node h3 ({NET}.3) has joined"
    # In either order: Ray gives a node up after a while, and knows a new one at once.
    assert sorted(lines) == sorted([f"warning: {gone}", f"warning: {joined}"])
    ledger = SweepLayout(hosts.folder / "magtkd-results", "hosts").ledger
    warnings = [e.message for e in read_events(ledger) if isinstance(e, Warned)]
    assert sorted(warnings) == sorted([gone, joined])


def test_nodes_without_magtkd_get_it(hosts: Hosts, tmp_path: Path) -> None:
    """Their Python has the libraries, and not this package."""
    bare = tmp_path / "bare"
    venv.create(bare, symlinks=True, with_pip=False)
    # A path in a .pth file: the .pth files there, one of which adds this package, are not read.
    packages = next(bare.glob("lib/python*/site-packages"))
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    hosts.start_head()
    hosts.start_node(2, python=str(bare / "bin" / "python"))
    hosts.write_sweep()
    line = only_line(hosts.magtkd(1, *RUN))
    assert f"node h2 ({NET}.2): does not have magtkd; install it there in the Python that" in line
    code, out, err = hosts.magtkd(1, *RUN, "--ship-code")
    assert code == 0, err
    check_quiet(out, err)
    assert completed(hosts) == 3


def test_nodes_that_are_waited_for(hosts: Hosts) -> None:
    hosts.start_head()
    hosts.write_sweep()
    waiting = (*RUN, "--wait-nodes", 2)
    line = hosts.magtkd(1, *waiting, "--wait-seconds", 1)[2].splitlines()[-1]
    assert "--wait-nodes 2: 1 of 2 nodes are alive after 1 s; start the others, or ask" in line
    driver = hosts.start(1, sys.executable, "-m", "tune.cli", *waiting)
    time.sleep(8)
    hosts.start_node(2)
    _, err = driver.communicate(timeout=120)
    assert driver.returncode == 0, err
    assert err.count("waiting for nodes: 1 of 2 are alive; ") == 1
    assert completed(hosts) == 3


@pytest.mark.parametrize("scheduler", ["fifo", "pbt"])
def test_trials_live_on_all_hosts_where_one_is_too_small(hosts: Hosts, scheduler: str) -> None:
    """A host of 450 MiB has room for two trials, three hosts for more than six."""
    memory = f"--memory={450 << 20}"
    hosts.start_head(0, memory)
    hosts.start_node(2, 1, memory)
    hosts.start_node(3, 1, memory)
    hosts.write_sweep(
        search={"num_trials": 6, "max_concurrent": 6},
        fusion={"epochs": 60},
        scheduler={"kind": scheduler, "perturbation_interval": 5} if scheduler == "pbt" else {},
        space={"fusion.learning_rate": {"float": [1e-4, 1e-2], "log": True}},
    )
    process = hosts.start(1, sys.executable, "-m", "tune.cli", *RUN)
    wait_until(lambda: any(hosts.is_busy(host, "Trial") for host in (2, 3)), process)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    check_quiet(out, err)
    assert completed(hosts) == 6
    assert "run at a time" not in err
