"""`deploy/workstations.yaml`, as docs/cluster.md has it: Ray's launcher on a laptop, ssh to three
hosts, and a sweep on them while one of them is lost and comes back."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import time
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.page import commands
from tests.cluster.several_hosts import NET, Hosts, wait_until
from tune.ledger import EpochReported, SweepLayout, Warned, read_events, read_sweep

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
LAPTOP = 4
WORKSTATIONS = (1, 2, 3)
TRIALS, EPOCHS = 10, 600
SSHD = "/usr/sbin/sshd"
OPTIONS = ("UsePAM=no", "PermitRootLogin=yes", "StrictModes=no", "PidFile=none")
# The workstations see the libraries of this Python, and reach no index: `make install` finds them
# installed, and installs magtkd itself.
PIP = "[global]\nno-index = true\nno-build-isolation = false\n"
RAY = "#!{}\nfrom ray.scripts.scripts import main\nmain()\n"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Hosts]:
    """Three workstations with ssh, and a laptop with this repository."""
    tools = ("ip", "nsenter", "ssh", "ssh-keygen", "rsync", "make", SSHD)
    if missing := [tool for tool in tools if not shutil.which(tool)]:
        pytest.skip(f"needs {', '.join(missing)}")
    if os.geteuid() != 0:
        pytest.skip("needs root")
    made = Hosts(tmp_path, home(tmp_path, LAPTOP), LAPTOP)
    try:
        make_key(tmp_path / "host_key")
        key = made.home / ".ssh" / "id_ed25519"
        make_key(key)
        for host in WORKSTATIONS:
            make_workstation(home(tmp_path, host), Path(f"{key}.pub").read_text())
            start_ssh(made, host)
        make_laptop(made)
        yield made
    finally:
        made.close()


def home(folder: Path, host: int) -> Path:
    path = folder / f"home{host}"
    (path / ".ssh").mkdir(parents=True, exist_ok=True)
    return path


def make_key(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)


def make_workstation(home: Path, key: str) -> None:
    (home / ".ssh" / "authorized_keys").write_text(key)
    (home / ".config" / "pip").mkdir(parents=True)
    (home / ".config" / "pip" / "pip.conf").write_text(PIP)
    environment = home / "magtkd" / ".venv"
    venv.create(environment, symlinks=True, with_pip=False)
    packages = next(environment.glob("lib/python*/site-packages"))
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    ray = environment / "bin" / "ray"
    ray.write_text(RAY.format(environment / "bin" / "python"))
    ray.chmod(0o755)


def give_home(hosts: Hosts, host: int) -> None:
    """On a host, root has a home of its own, for ssh and sshd, too, which do not look at HOME."""
    passwd = hosts.folder / f"passwd{host}"
    users = Path("/etc/passwd").read_text().splitlines()
    root = f"root:x:0:0:root:{home(hosts.folder, host)}:/bin/bash"
    passwd.write_text("\n".join([root, *(one for one in users if not one.startswith("root:"))]))
    code, out, err = hosts.run(host, "mount", "--bind", passwd, "/etc/passwd")
    assert code == 0, out + err


def start_ssh(hosts: Hosts, host: int) -> None:
    give_home(hosts, host)
    Path("/run/sshd").mkdir(exist_ok=True)
    options = [word for one in (*OPTIONS, f"ListenAddress={NET}.{host}") for word in ("-o", one)]
    code, out, err = hosts.run(host, SSHD, "-h", hosts.folder / "host_key", *options)
    assert code == 0, out + err


def make_laptop(hosts: Hosts) -> None:
    """The repository, with the addresses, the user and the sweep of this lab."""
    give_home(hosts, LAPTOP)
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in names.split("\0"):
        if name and (ROOT / name).exists():
            target = hosts.folder / "repository" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target)
    hosts.write_sweep(
        name="quickstart",
        fusion={"epochs": EPOCHS, "model": "magt"},
        search={"num_trials": TRIALS},
    )
    shutil.move(
        hosts.folder / "sweep.yaml", hosts.folder / "repository/experiments/quickstart_sweep.yaml"
    )
    config = hosts.folder / "repository/deploy/workstations.yaml"
    text = config.read_text()
    for host in WORKSTATIONS:
        text = text.replace(f"192.168.1.1{host}", f"{NET}.{host}")
    config.write_text(text.replace("ssh_user: ann", "ssh_user: root"))


def start(hosts: Hosts, command: str) -> subprocess.Popen[str]:
    """Start a command of the page on the laptop, in the repository's folder."""
    here = shlex.quote(str(hosts.folder / "repository"))
    return hosts.start(
        LAPTOP,
        "bash",
        "-c",
        f"cd {here}\n({here_for(hosts, command)}\n) </dev/null 2>&1",
        PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        TMPDIR=str(hosts.folder),
        RAY_USAGE_STATS_ENABLED="0",
    )


def here_for(hosts: Hosts, command: str) -> str:
    return command.replace("/shared/", f"{hosts.folder}/shared/")


def run(hosts: Hosts, command: str) -> str:
    process = start(hosts, command)
    out, _ = process.communicate(timeout=400)
    assert process.returncode == 0, f"{command}\n{out}"
    return out


def has_ray(hosts: Hosts, host: int) -> bool:
    return hosts.run(host, "pgrep", "-f", "raylet/raylet")[0] == 0


def test_from_nothing_to_a_finished_sweep(lab: Hosts) -> None:
    token, up, sweep, down = commands("Workstations with ssh")
    run(lab, token)
    run(lab, up)
    driver = start(lab, sweep)
    wait_until(lambda: has_ray(lab, 3) and lab.is_busy(3, "ray::Worker.advance"), driver)
    lab.call("kill", 3)
    time.sleep(5)
    lab.call("boot", 3)
    start_ssh(lab, 3)  # as a workstation does that is switched on again
    out, _ = driver.communicate(timeout=600)
    assert driver.returncode == 0, out
    assert "Traceback" not in out
    name = f"node h3 ({NET}.3)"
    gone, joined = f"{name} is gone; its work is repeated elsewhere", f"{name} has joined"
    # Between these, the terminal shows what runs.
    assert re.findall(rf"warning: ({re.escape(name)}[^\r\n]*)", out) == [gone, joined]
    layout = SweepLayout(lab.folder / "shared" / "magtkd", "quickstart")
    state = read_sweep(layout)
    assert state.closed == "finished"
    assert state.count() == {"completed": TRIALS}
    events = list(read_events(layout.ledger))
    assert [e.message for e in events if isinstance(e, Warned)] == [gone, joined]
    epochs = [(e.trial, e.epoch) for e in events if isinstance(e, EpochReported)]
    assert sorted(epochs) == [
        (trial, epoch) for trial in range(TRIALS) for epoch in range(1, EPOCHS + 1)
    ]
    assert has_ray(lab, 3)
    run(lab, sweep)  # it is finished, and ends at once
    run(lab, down)
    end = time.monotonic() + 150  # workers end when they have missed their head for a minute
    while any(has_ray(lab, host) for host in WORKSTATIONS):
        assert time.monotonic() < end
        time.sleep(1)
