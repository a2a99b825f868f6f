"""Several hosts on one machine, as network namespaces: see the script `hosts` beside this file."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import yaml

__all__ = ["HEAD", "NET", "Hosts", "wait_until", "write_token"]

SCRIPT = Path(__file__).with_name("hosts")
NET = os.environ.get("HOSTS_NET", "10.79.0")
HEAD = f"{NET}.1:6379"
STAGE = {"epochs": 1, "hidden_dim": 8}
SWEEP: dict[str, Any] = {
    "name": "hosts",
    "data": {"synthetic": {"num_dialogues": 20, "mean_length": 5, "num_emotions": 3}},
    "teacher": STAGE,
    "audio": STAGE,
    "video": STAGE,
    "fusion": STAGE | {"epochs": 2, "num_heads": 2},
    "search": {"sampler": "random", "num_trials": 3, "max_concurrent": 4},
    "space": {"fusion.dropout": {"float": [0.1, 0.5]}},
}


class Hosts:
    """Hosts 1, 2, ... of their own addresses, with one file system; `home` is the user's."""

    def __init__(self, folder: Path, home: Path, count: int = 3) -> None:
        self.folder, self.home = folder, home
        self._state = tempfile.mkdtemp(prefix="mh", dir="/tmp")  # sockets need short paths
        self._started: list[subprocess.Popen[str]] = []
        self.call("up", count)

    def call(self, *arguments: object) -> None:
        subprocess.run([SCRIPT, *map(str, arguments)], env=self._environment({}), check=True)

    def start(self, host: int, *command: object, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [SCRIPT, "on", str(host), *map(str, command)],
            env=self._environment(environment),
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._started.append(process)
        return process

    def run(
        self, host: int, *command: object, timeout: float = 240, **environment: str
    ) -> tuple[int, str, str]:
        """Exit code, output, errors."""
        process = self.start(host, *command, **environment)
        out, err = process.communicate(timeout=timeout)
        return process.returncode, out, err

    def magtkd(self, host: int, *arguments: object, **options: Any) -> tuple[int, str, str]:
        # As the command has it: without the working directory among the places of packages.
        return self.run(host, sys.executable, "-P", "-m", "tune.cli", *arguments, **options)

    def start_head(
        self, num_cpus: int = 0, *options: str, port: int = 6379, **environment: str
    ) -> None:
        head = ("--head", f"--port={port}", "--include-dashboard=false")
        self._ray_start(1, num_cpus, *head, *options, **environment)

    def start_node(
        self,
        host: int,
        num_cpus: int = 1,
        *options: str,
        python: str = sys.executable,
        **environment: str,
    ) -> None:
        address = f"--address={HEAD}"
        self._ray_start(host, num_cpus, address, *options, python=python, **environment)

    def _ray_start(
        self,
        host: int,
        num_cpus: int,
        *options: str,
        python: str = sys.executable,
        **environment: str,
    ) -> None:
        code, out, err = self.run(
            host,
            python,
            "-m",
            "ray.scripts.scripts",
            "start",
            *options,
            f"--node-ip-address={NET}.{host}",
            f"--num-cpus={num_cpus}",
            "--object-store-memory=100000000",
            timeout=240,
            **environment,
        )
        assert code == 0, out + err

    def start_launcher(self, host: int, num_cpus: int = 1) -> None:
        """Ray on a host, started again whenever it ends, as a launcher with restarts does."""
        start = f"{sys.executable} -m ray.scripts.scripts start --block --disable-usage-stats"
        start += f" --address={HEAD} --node-ip-address={NET}.{host} --num-cpus={num_cpus}"
        start += " --object-store-memory=100000000 >/dev/null 2>&1"
        self.start(host, "bash", "-c", f"while true; do {start}; sleep 1; done")

    def processes(self, host: int) -> list[psutil.Process]:
        """All processes of a host, but for the one that keeps it."""
        keeper = int(Path(self._state, f"{host}.pid").read_text())
        space = os.readlink(f"/proc/{keeper}/ns/pid")
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{process.pid}/ns/pid") == space and process.pid != keeper:
                    found.append(process)
        return found

    def raylet(self, host: int) -> psutil.Process:
        """The raylet of a host.

        Raises:
            LookupError: there is none.
        """
        mine = f"--node_ip_address={NET}.{host}"
        for process in psutil.process_iter(["cmdline"]):
            line = process.info["cmdline"]
            if line and line[0].endswith("raylet/raylet") and mine in line:
                return process
        raise LookupError(f"host {host} has no raylet")

    def is_busy(self, host: int, call: str) -> bool:
        """Whether a worker on a host is in this call."""
        return any(call in " ".join(one) for one in titles(self.raylet(host)))

    def write_sweep(self, **changes: Any) -> None:
        tree = dict(SWEEP)
        for name, value in changes.items():
            is_section = isinstance(value, dict) and name != "space"
            tree[name] = {**tree.get(name, {}), **value} if is_section else value
        (self.folder / "sweep.yaml").write_text(yaml.safe_dump(tree))

    def close(self) -> None:
        self.call("down")
        for process in self._started:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.communicate()
        shutil.rmtree(self._state, ignore_errors=True)

    def _environment(self, changes: dict[str, str]) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        own = {"HOSTS_DIR": self._state, "HOME": str(self.home), "COLUMNS": "200"}
        return kept | own | changes


def titles(parent: psutil.Process) -> Iterator[list[str]]:
    for process in parent.children(recursive=True):
        try:
            yield process.cmdline()
        except psutil.Error:
            continue


def write_token(home: Path) -> Path:
    """A token as `ray get-auth-token --generate` would write it, but for its mode."""
    path = home / ".ray" / "auth_token"
    path.parent.mkdir(parents=True)
    path.write_text(secrets.token_hex(32))
    return path


def wait_until(
    condition: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 120
) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.1)
