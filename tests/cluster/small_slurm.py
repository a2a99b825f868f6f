"""A real Slurm over several hosts: munged, slurmctld on host 1, and a slurmd on each."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.cluster.several_hosts import NET, Hosts

__all__ = ["PROGRAMS", "SmallSlurm"]

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun")
COUNT = 3


class SmallSlurm:
    """Slurm on the hosts h1, h2, h3: two CPUs and two GPUs each, which are only declared."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts
        self.state = Path(tempfile.mkdtemp(prefix="ms", dir="/tmp"))  # sockets need short paths
        for name in ("munge", "ctld", "spool", "log"):
            (self.state / name).mkdir()
        self.state.chmod(0o755)
        conf = Path(__file__).with_name("slurm.conf").read_text()
        # Ray's folders are named by the job.
        first = 1000 * (os.getpid() % 60_000)
        for name, value in (("STATE", self.state), ("NET", NET), ("FIRST", first)):
            conf = conf.replace(f"@{name}@", str(value))
        (self.state / "slurm.conf").write_text(conf)
        for number in range(2):
            (self.state / f"gpu{number}").touch()
        (self.state / "gres.conf").write_text(
            f"NodeName=h[1-3] Name=gpu File={self.state}/gpu[0-1]\n"
        )
        (self.state / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        key = self.state / "munge" / "key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o600)
        self._munged = subprocess.Popen(
            [
                "munged",
                "--foreground",
                "--force",
                f"--socket={self.state}/munge/sock",
                f"--key-file={key}",
                f"--pid-file={self.state}/munge/pid",
                f"--log-file={self.state}/munge/log",
                f"--seed-file={self.state}/munge/seed",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.environment = {"SLURM_CONF": str(self.state / "slurm.conf")}
        hosts.start(1, "slurmctld", "-D", **self.environment)
        for host in range(1, COUNT + 1):
            hosts.start(host, "slurmd", "-D", "-N", f"h{host}", **self.environment)
        end = time.monotonic() + 60
        while self.call("sinfo", "--noheader", "--format=%D %t").strip() != f"{COUNT} idle":
            if time.monotonic() > end:
                log = (self.state / "log" / "slurmctld.log").read_text()
                self.close()
                raise AssertionError(log)
            time.sleep(0.2)

    def call(self, *command: object) -> str:
        """The output of one of Slurm's commands on host 1."""
        code, out, err = self._hosts.run(1, *command, **self.environment)
        return out if code == 0 else err

    def job(self, job: int | str, field: str) -> str:
        """A field of `scontrol show job`, such as JobState."""
        shown = self.call("scontrol", "show", "job", job)
        words = (word.partition("=") for word in shown.split())
        return next((value for name, _, value in words if name == field), "")

    def queue(self, *options: str) -> list[list[str]]:
        """Job, state, name and nodes of each job in the queue."""
        out = self.call("squeue", "--noheader", "--format=%i|%T|%j|%N", *options)
        return [line.split("|") for line in out.splitlines()]

    def wait(self, condition: Callable[[], bool], seconds: float = 300) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, self.queue()
            time.sleep(0.2)

    def close(self) -> None:
        jobs = [job for job, *_ in self.queue()]
        if jobs:
            self.call("scancel", "--signal=KILL", *jobs)
            self.call("scancel", *jobs)
        self._munged.send_signal(signal.SIGTERM)
        self._munged.wait(10)
        first = 1000 * (os.getpid() % 60_000)
        for folder in Path("/tmp").glob("ray-*.*"):
            job = folder.stem.removeprefix("ray-")
            if job.isdecimal() and first <= int(job) < first + 1000:
                shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(self.state, ignore_errors=True)
