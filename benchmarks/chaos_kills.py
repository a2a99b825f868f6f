"""What may be killed beneath a sweep: a Ray cluster, a tracking server, processes, artifacts.

Only processes that this script started, or that those started, are ever killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

__all__ = [
    "DRIVER_KINDS",
    "GRACE_SECONDS",
    "KINDS",
    "SIGNALS",
    "TITLES",
    "WAIT_SECONDS",
    "Driver",
    "Kill",
    "Site",
    "damage_artifact",
    "disk_bytes",
    "holder_of",
    "kill_all",
    "now",
    "remove",
    "title_of",
    "whole_artifacts",
]

REPOSITORY = Path(__file__).resolve().parent.parent
TITLES = {
    "trial": r"^ray::(Trial|ResourceTrainable)\b",
    "stage": r"^ray::Worker\.train\b",
    "fusion": r"^ray::Worker\.(?!train\b|ready\b|__init__)\w+",
    "engine": r"^ray::(engine-\w+:)?Engine\b",
}
"""What Ray calls the processes of each kind; of workers those that are in such a call."""
SIGNALS = {"SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT, "SIGUSR1": signal.SIGUSR1}
DRIVER_KINDS = ("driver", "artifact", *SIGNALS)
"""Kinds after which the sweep has to be resumed."""
KINDS = ("driver", *TITLES, "raylet", "MLflow", "artifact", *SIGNALS)
WAIT_SECONDS = 10.0  # for a process of the kind that was drawn
GRACE_SECONDS = 90.0  # for a driver that got a signal
# A raylet that died is noticed within two seconds instead of Ray's fifteen.
HEALTH = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 500,
    "health_check_failure_threshold": 4,
}


@dataclass
class Kill:
    """One thing that was done to a sweep, at `time` (milliseconds, as in the ledger)."""

    number: int
    kind: str
    target: str
    time: int
    num_lines: int
    """Whole lines of the ledger at that moment."""
    outcome: str = ""
    seconds: float | None = None
    """Until the next report or end of a trial."""
    repeated: int = 0
    """Epochs that were reported, and that no checkpoint held when the driver was gone."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


# --- processes --------------------------------------------------------------------------------


def now() -> int:
    """Milliseconds, as the ledger counts them."""
    return time.time_ns() // 1_000_000


def _alive(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    return [one for one in processes if one.is_running() and _status(one) != psutil.STATUS_ZOMBIE]


def _status(process: psutil.Process) -> str:
    try:
        return str(process.status())
    except psutil.Error:
        return str(psutil.STATUS_ZOMBIE)


def title_of(process: psutil.Process) -> str:
    """The command line of the process; empty where it is gone."""
    try:
        return " ".join(process.cmdline()).strip()
    except psutil.Error:
        return ""


def kill_all(processes: Iterable[psutil.Process]) -> None:
    """Kill them, as far as they are still there."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Driver:
    """`magtkd sweep` in a process of its own; its output goes to a file."""

    def __init__(self, words: list[str], log: Path, environment: dict[str, str]) -> None:
        self.log, self.started = log, now()
        self._file = log.open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tune.cli", *words],
            cwd=log.parent,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self._file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._handle = psutil.Process(self._process.pid)
        self._seen: set[psutil.Process] = set()

    @property
    def code(self) -> int | None:
        """Its exit code, None while it runs."""
        return self._process.poll()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def look(self) -> None:
        """Note which processes it has started: once it is dead, they have another parent."""
        with contextlib.suppress(psutil.Error):
            self._seen.update(self._handle.children(recursive=True))

    def send(self, number: int, *, to_group: bool) -> None:
        """Send it a signal, or its whole group, as a terminal does."""
        self.look()
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if to_group else os.kill)(self.pid, number)

    def wait(self, seconds: float) -> bool:
        """Whether it ended within that time."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return self.code is not None

    def end(self, patience: float = 30.0) -> list[str]:
        """Kill it where it still runs; the titles of those of its processes that outlive it."""
        if self.code is None:
            self.send(signal.SIGKILL, to_group=False)
            self._process.wait()
        self._file.close()
        # Ray's own agents, which train nothing, notice after half a minute that their raylet died.
        agents = [one for one in _alive(self._seen) if title_of(one).endswith("Agent")]
        kill_all(agents)
        _, left = psutil.wait_procs(_alive(self._seen), timeout=patience)
        left = _alive(left)
        titles = [f"{one.pid} {title_of(one)[:80]}" for one in left]
        kill_all(left)
        return titles

    def said(self, num_lines: int = 12) -> list[str]:
        """The last lines that it said."""
        return self.log.read_text(errors="replace").splitlines()[-num_lines:]


# --- the site ---------------------------------------------------------------------------------


@dataclass
class Site:
    """The folder, the Ray cluster of `num_nodes` more nodes than its head (0: each driver starts
    its own Ray), and the tracking server; what was killed of it comes back a little later."""

    folder: Path
    num_nodes: int
    draw: random.Random
    cpus: int = 1
    cluster: Any = None
    server: subprocess.Popen[bytes] | None = None
    _port: int = 0
    _due: list[tuple[float, Callable[[], None]]] = field(default_factory=list)
    _num_added: int = 0

    def __enter__(self) -> Site:
        for name in ("ray", "tmp"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        # Inherited by Ray's processes as well, which are this process's children.
        os.environ |= {
            "RAY_TMPDIR": str(self.folder / "ray"),
            "TMPDIR": str(self.folder / "tmp"),
            "PYTHONPATH": os.pathsep.join(
                filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
            ),
            "RAY_USAGE_STATS_ENABLED": "0",
            "GIT_PYTHON_REFRESH": "quiet",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        for name in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI"):
            os.environ.pop(name, None)
        self._port = _free_port()
        self._start_server()
        if self.num_nodes:
            self._start_cluster()
        return self

    def __exit__(self, *exception: object) -> None:
        if self.cluster is not None:
            with contextlib.suppress(Exception):
                self.cluster.shutdown()
        self._end_server()
        kill_all(psutil.Process().children(recursive=True))

    @property
    def environment(self) -> dict[str, str]:
        """What a driver is given."""
        environment = {**os.environ, "MLFLOW_TRACKING_URI": self.uri, "COLUMNS": "200"}
        return (
            environment
            if self.cluster is None
            else {**environment, "RAY_ADDRESS": self.cluster.address}
        )

    @property
    def uri(self) -> str:
        """The tracking server's address."""
        return f"http://127.0.0.1:{self._port}"

    def tend(self, *, all_of_it: bool = False) -> None:
        """Bring back what is due by now."""
        for entry in sorted(self._due, key=lambda entry: entry[0]):
            if all_of_it or entry[0] <= time.monotonic():
                self._due.remove(entry)
                entry[1]()

    def _later(self, action: Callable[[], None]) -> None:
        self._due.append((time.monotonic() + self.draw.uniform(0.5, 5.0), action))

    def leftovers(self, patience: float = 20.0) -> list[str]:
        """Titles of trials, engines and workers that no driver is there for."""
        deadline = time.monotonic() + patience
        while found := [
            process for kind in TITLES for process in self.find(TITLES[kind])
        ] + self.find(r"^ray::Worker\b"):
            if time.monotonic() > deadline:
                return sorted({f"{one.pid} {title_of(one)[:80]}" for one in found})
            time.sleep(0.2)
        return []

    def find(self, pattern: str) -> list[psutil.Process]:
        """This script's processes with such a title, its own children's children among them."""
        every = psutil.Process().children(recursive=True)
        return [process for process in every if re.search(pattern, title_of(process))]

    # --- Ray ----------------------------------------------------------------------------------

    def _start_cluster(self) -> None:
        from ray.cluster_utils import Cluster

        # The head must have this machine's outer address, under which drivers look for it.
        self.cluster = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": self.cpus,
                "include_dashboard": False,
                "_system_config": HEALTH,
            },
        )
        for _ in range(self.num_nodes):
            self._add_node()

    def _add_node(self) -> None:
        # An address of its own: a trial asks for its driver's node by address.
        self._num_added += 1
        address = f"127.0.1.{self._num_added}"
        self.cluster.add_node(num_cpus=self.cpus, node_ip_address=address)

    def kill_raylet(self) -> str | None:
        """Kill another node's raylet; a new node comes a little later. Whom, or None."""
        nodes = sorted(self.cluster.worker_nodes, key=lambda one: one.node_ip_address)
        if self.cluster is None or not nodes:
            return None
        node = self.draw.choice(nodes)
        process = node.all_processes["raylet"][0].process
        beneath = psutil.Process(process.pid).children(recursive=True)
        titles = sorted({title_of(one) for one in beneath if "ray::Worker" in title_of(one)})
        process.kill()
        process.wait()
        self.cluster.worker_nodes.discard(node)

        def replace() -> None:
            kill_all(_alive(beneath))
            node.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)
            self._add_node()

        self._later(replace)
        return f"{node.node_ip_address} with {', '.join(titles) or 'no worker'}"

    # --- tracking -----------------------------------------------------------------------------

    def _start_server(self) -> None:
        store = f"sqlite:///{self.folder / 'mlflow.db'}"
        command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store]
        command += ["--artifacts-destination", str(self.folder / "mlartifacts")]
        command += ["--host", "127.0.0.1", "--port", str(self._port), "--workers", "1"]
        with (self.folder / "mlflow.log").open("ab") as log:
            self.server = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
                start_new_session=True,
            )
        if not (self.folder / "mlflow.ready").exists():
            self.wait_for_server()
            (self.folder / "mlflow.ready").touch()

    def wait_for_server(self, seconds: float = 120.0) -> None:
        """Until it answers.

        Raises:
            RuntimeError: it does not.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.uri}/health"):
                return
            time.sleep(0.2)
        raise RuntimeError(f"the MLflow server does not answer; see {self.folder}/mlflow.log")

    def _end_server(self) -> None:
        if self.server is None:
            return
        with contextlib.suppress(psutil.Error):
            tree = psutil.Process(self.server.pid)
            kill_all([tree, *tree.children(recursive=True)])
        self.server.wait()
        self.server = None

    def kill_server(self) -> str | None:
        """Kill the tracking server; it comes back a little later. None where it is away."""
        if self.server is None:
            return None
        pid = self.server.pid
        self._end_server()
        self._later(self._start_server)
        return f"{pid} mlflow server"


# --- artifacts --------------------------------------------------------------------------------


def damage_artifact(storage: Path, draw: random.Random) -> tuple[str, str, str] | None:
    """Truncate, change or delete a file of an artifact: its stage, its key and what was done.

    None where there is no artifact yet.
    """
    folders = sorted(path.parent for path in (storage / "artifacts").glob("*/*/manifest.json"))
    if not folders:
        return None
    folder = draw.choice(folders)
    file = draw.choice(sorted(path for path in folder.iterdir() if path.is_file()))
    how = draw.choice(("truncated", "changed", "deleted"))
    content = bytearray(file.read_bytes())
    if how == "deleted":
        file.unlink()
    elif how == "truncated":
        file.write_bytes(content[: draw.randrange(len(content))])
    else:
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        file.write_bytes(content)
    return folder.parent.name, folder.name, f"{file.name} {how}"


def whole_artifacts(storage: Path) -> dict[tuple[str, str], bool]:
    """Whether each artifact matches its manifest."""
    found = {}
    for folder in (storage / "artifacts").glob("*/*"):
        try:
            manifest = json.loads((folder / "manifest.json").read_bytes())
            found[folder.parent.name, folder.name] = all(
                hashlib.sha256((folder / entry["path"]).read_bytes()).hexdigest() == entry["sha256"]
                for entry in manifest.values()
            )
        except (OSError, ValueError, TypeError, KeyError):
            found[folder.parent.name, folder.name] = False
    return found


def holder_of(lock: Path) -> str | None:
    """What a lock file has on the process that holds it; None where none does."""
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return file.read().decode(errors="replace") or "unknown"
    return None


def disk_bytes(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def remove(folder: Path) -> None:
    """Delete a folder, whatever is still being written to it."""
    shutil.rmtree(folder, ignore_errors=True)
