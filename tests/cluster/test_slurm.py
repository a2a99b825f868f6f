"""Sweeps under a real Slurm of three hosts: one job that continues itself, and workers as jobs."""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.cluster.page import commands, section
from tests.cluster.several_hosts import Hosts, wait_until, write_token
from tests.cluster.small_slurm import PROGRAMS, SmallSlurm
from tune.ledger import EpochReported, SweepLayout, SweepState, fold, read_events

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

NUM_TRIALS, NUM_EPOCHS = 18, 150
SMALL = {"epochs": 3}
LONG = {
    "name": "mosi",
    "data": {"synthetic": {"num_dialogues": 60, "mean_length": 8, "num_emotions": 3}},
    "teacher": SMALL,
    "audio": SMALL,
    "video": SMALL,
    "search": {"num_trials": NUM_TRIALS, "max_concurrent": 6},
    "space": {
        "teacher.hidden_dim": {"choice": [8, 9, 10]},
        "fusion.dropout": {"float": [0.1, 0.5]},
    },
}
PATIENCE = 300.0
NODES = ("--nodes=3", "--gpus-per-node=2", "--cpus-per-node=2", "--no-tracking")
WORKERS = ("--worker-jobs=2", "--gpus-per-node=1", "--cpus-per-node=1", "--time=10")


@pytest.fixture
def slurm(hosts: Hosts) -> Iterator[SmallSlurm]:
    """Slurm on three hosts, a sweep of one to three minutes in the working directory, and a token
    that an earlier Ray of this user left."""
    if missing := [name for name in PROGRAMS if not shutil.which(name)]:
        pytest.skip(f"needs Slurm: no {', '.join(missing)}")
    write_token(hosts.home)
    started = SmallSlurm(hosts)
    hosts.write_sweep(**LONG, fusion={"epochs": NUM_EPOCHS})
    yield started
    started.close()


@pytest.fixture
def magtkd(hosts: Hosts, slurm: SmallSlurm) -> Callable[..., str]:
    """Runs magtkd on host 1; gives what it printed."""

    def run(*arguments: object, expected: int = 0) -> str:
        code, out, err = hosts.magtkd(1, *arguments, **slurm.environment)
        assert code == expected, out + err
        return out if expected == 0 else err

    return run


@pytest.fixture
def submit(magtkd: Callable[..., str]) -> Callable[..., str]:
    """Submits a sweep; gives the job's id."""

    def run(*arguments: object) -> str:
        out = magtkd("slurm", *arguments)
        found = re.match(r"job (\d+): ", out)
        assert found, out
        return found[1]

    return run


def layout(folder: Path, name: str = "mosi") -> SweepLayout:
    return SweepLayout(folder / "magtkd-results", name)


def log_of(folder: Path, job: str, name: str = "mosi") -> str:
    path = layout(folder, name).folder / "slurm" / f"{job}.log"
    return path.read_text() if path.exists() else ""


def shows(folder: Path, job: str, pattern: str, count: int = 1) -> Callable[[], bool]:
    return lambda: len(re.findall(pattern, log_of(folder, job))) >= count


def check_finished(folder: Path) -> SweepState:
    """All trials have completed, and no epoch is missing or there twice."""
    events = list(read_events(layout(folder).ledger))
    state = fold(events)
    assert state.count() == {"completed": NUM_TRIALS}
    epochs = sorted((e.trial, e.epoch) for e in events if isinstance(e, EpochReported))
    every = [(trial, epoch) for trial in range(NUM_TRIALS) for epoch in range(1, NUM_EPOCHS + 1)]
    assert epochs == every
    return state


def test_a_job_continues_over_its_time_limit_and_a_requeue(hosts, slurm, submit):
    job = submit("sweep.yaml", *NODES, "--time=60")
    token = layout(hosts.folder).folder / "slurm" / f"{job}.token"
    slurm.wait(token.exists)
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    slurm.wait(shows(hosts.folder, job, r"trial \d+ completed"))
    # The limit is now so near that Slurm sends its signal with its next look, each half a minute.
    hours, minutes, seconds = map(int, slurm.job(job, "RunTime").split(":"))
    limit = int(hours * 60 + minutes + seconds / 60 + 2)
    slurm.call("scontrol", "update", f"JobId={job}", f"TimeLimit={limit}")
    slurm.wait(shows(hosts.folder, job, "SIGUSR1: saving what runs"))
    slurm.wait(lambda: slurm.job(job, "JobState") == "PENDING")
    slurm.call("scontrol", "update", f"JobId={job}", "TimeLimit=60")
    slurm.wait(shows(hosts.folder, job, r"attempt 1 on(.|\n)*trial \d+ completed"))
    slurm.call("scontrol", "requeue", job)
    slurm.wait(shows(hosts.folder, job, "attempt 2 on"))
    slurm.wait(lambda: not slurm.queue(), 600)
    assert slurm.job(job, "ExitCode") == "0:0"
    assert not token.exists()
    assert check_finished(hosts.folder).num_resumed == 2


def test_what_is_cancelled_or_stopped_is_continued_by_the_next_job(hosts, slurm, submit, magtkd):
    job = submit("sweep.yaml", *NODES)
    assert f"job {job} runs it already" in magtkd("slurm", "sweep.yaml", *NODES, expected=2)
    slurm.wait(shows(hosts.folder, job, r"trial \d+ completed"))
    slurm.call("scancel", job)
    slurm.wait(lambda: not slurm.queue())
    # The driver has ended by itself, before Slurm killed it.
    log = log_of(hosts.folder, job)
    # Ray's library in the driver ends it with 1 where that finds out first.
    assert ("Ray is gone" in log and "exit code 75" in log) or "exit code 1\n" in log

    job = submit("sweep.yaml", *NODES)
    slurm.wait(shows(hosts.folder, job, r"trial \d+ completed"))
    assert magtkd("slurm", "--stop", "mosi") == f"job {job}: saves what runs, then ends\n"
    slurm.wait(lambda: not slurm.queue())
    assert "SIGUSR1: saving what runs" in log_of(hosts.folder, job)
    assert f"job {job} is not requeued" in log_of(hosts.folder, job)

    held = submit("sweep.yaml", *NODES, "--sbatch=--hold")
    assert magtkd("slurm", "--stop", "mosi") == f"job {held}: cancelled; it was pending\n"
    assert "no job of yours runs it" in magtkd("slurm", "--stop", "mosi", expected=2)

    job = submit("sweep.yaml", *NODES)
    slurm.wait(lambda: not slurm.queue(), 400)
    assert slurm.job(job, "ExitCode") == "0:0"
    assert check_finished(hosts.folder).num_resumed == 2


def test_two_jobs_on_one_node(hosts, slurm, submit):
    one = ("--cpus-per-node=1", "--gpus-per-node=1", "--no-tracking", "--sbatch=--nodelist=h1")
    short = ("fusion.epochs=10", "search.num_trials=2")
    jobs = [submit("sweep.yaml", *one, *short, f"name={name}") for name in ("mosi", "meld")]
    slurm.wait(lambda: [state for _, state, *_ in slurm.queue()] == ["RUNNING"] * 2)
    slurm.wait(lambda: not slurm.queue(), 300)
    addresses = set()
    for job, name in zip(jobs, ("mosi", "meld"), strict=True):
        state = fold(read_events(layout(hosts.folder, name).ledger))
        assert state.count() == {"completed": 2}, log_of(hosts.folder, job, name)
        head = layout(hosts.folder, name).folder / "slurm" / f"{job}-0-ray-h1.log"
        addresses |= set(re.findall(r"--address='(\S+)'", head.read_text()))
    assert len(addresses) == 2


def test_srun_starts_one_driver_whatever_it_is_told(hosts, slurm):
    driver = (sys.executable, "-P", "-m", "tune.cli", "sweep", "sweep.yaml", "--no-tracking")
    short = ("fusion.epochs=3", "search.num_trials=2")
    code, out, err = hosts.run(
        1, "srun", "--nodes=3", "--ntasks=3", *driver, *short, **slurm.environment
    )
    assert code != 0, out + err  # srun's, for the other two
    lines = [line for line in err.splitlines() if line.startswith("magtkd: ")]
    assert lines == 2 * [lines[0]]
    assert "srun: started this 3 times" in lines[0]
    state = fold(read_events(layout(hosts.folder).ledger))
    assert state.closed == "finished"
    assert state.count() == {"completed": 2}


def test_what_slurm_refuses_is_one_line(slurm, magtkd):
    for more in (NODES, WORKERS):
        line = magtkd("slurm", "sweep.yaml", *more, "--partition=none", expected=2)
        assert line.startswith("magtkd: sbatch: ")
        assert "nvalid partition" in line
        assert line.count("\n") == 1
    assert not slurm.queue()


def test_workers_are_jobs_that_come_and_go(hosts, slurm):
    command = ("slurm", "sweep.yaml", *WORKERS, "--idle-minutes=0.2", "--no-tracking")
    driver = hosts.start(1, sys.executable, "-m", "tune.cli", *command, **slurm.environment)

    def running() -> list[str]:
        return [job for job, state, *_ in slurm.queue() if state == "RUNNING"]

    def trials() -> int:
        ledger = layout(hosts.folder).ledger
        return fold(read_events(ledger)).count().get("completed", 0) if ledger.exists() else 0

    wait_until(lambda: len(running()) == 2 and trials() > 0, driver, PATIENCE)
    first, second = running()
    slurm.call("scancel", first)
    wait_until(lambda: len(running()) == 2 and first not in running(), driver, PATIENCE)
    before = trials()
    wait_until(lambda: trials() > before, driver, PATIENCE)
    slurm.call("scontrol", "requeue", second)
    out, err = driver.communicate(timeout=400)
    assert driver.returncode == 0, out + err
    check_finished(hosts.folder)
    slurm.wait(lambda: not slurm.queue())
    assert "is gone; its work is repeated elsewhere" in err
    assert len(err.splitlines()) < 60


def test_jobs_that_do_not_start_are_what_is_waited_for(hosts, slurm, magtkd):
    command = ("slurm", "sweep.yaml", *WORKERS, "--sbatch=--begin=now+1hour", "--no-tracking")
    driver = hosts.start(1, sys.executable, "-m", "tune.cli", *command, **slurm.environment)
    wait_until(
        lambda: [state for _, state, *_ in slurm.queue()] == ["PENDING"] * 2, driver, PATIENCE
    )
    wait_until(
        lambda: "wait for a node of type worker" in magtkd("status", "mosi"), driver, PATIENCE
    )
    time.sleep(10)  # the driver looks every few seconds
    psutil.Process(driver.pid).children()[0].send_signal(signal.SIGINT)
    out, err = driver.communicate(timeout=60)
    assert driver.returncode == 130, out + err
    assert "wait for a node of type worker" in err
    slurm.wait(lambda: not slurm.queue())


@pytest.mark.parametrize("state", ["RUNNING", "PENDING"])
def test_a_killed_driver_takes_its_workers_along(hosts, slurm, state):
    later = ["--sbatch=--begin=now+1hour"] if state == "PENDING" else []
    command = ("slurm", "sweep.yaml", *WORKERS, *later, "--no-tracking")
    driver = hosts.start(1, sys.executable, "-m", "tune.cli", *command, **slurm.environment)
    wait_until(lambda: any(one == state for _, one, *_ in slurm.queue()), driver, PATIENCE)
    time.sleep(10)  # until Ray runs there
    psutil.Process(driver.pid).children()[0].kill()
    driver.wait(10)
    slurm.wait(lambda: not slurm.queue())
    slurm.wait(lambda: hosts.run(1, "pgrep", "-f", "gcs_server|tune.cli")[0] == 1, 30)


def documented() -> list[str]:
    """The commands of the page's section, from its blocks and its table."""
    cells = [line.split("|")[2] for line in section("Slurm").splitlines() if line.startswith("|")]
    inline = [one for cell in cells for one in re.findall("`([^`]+)`", cell)]
    return [*commands("Slurm"), *inline]


def test_the_commands_of_the_documentation(hosts, slurm):
    """As they stand, from nothing to a finished sweep."""
    (hosts.folder / "sweep.yaml").rename(hosts.folder / "mosi_sweep.yaml")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    left, jobs = documented(), [""]

    def run(pattern: str, *, again: bool = False) -> None:
        command = next(one for one in documented() if re.search(pattern, one))
        if not again:
            left.remove(command)
        line = command.replace("JOB", jobs[-1])
        code, out, err = hosts.run(
            1, "bash", "-c", line, timeout=500, PATH=path, **slurm.environment
        )
        assert code == 0, f"{line}: {out}{err}"
        if found := re.match(r"job (\d+): /", out):
            jobs.append(found[1])

    def wait_for_attempt(number: int) -> None:
        pattern = rf"attempt {number} on(.|\n)*trial \d+ completed"
        slurm.wait(shows(hosts.folder, jobs[-1], pattern))

    run("--nodes 3")
    wait_for_attempt(0)
    run("^magtkd status")
    run("^magtkd best")
    run("--signal=USR1")
    wait_for_attempt(1)
    run("^scontrol requeue")
    wait_for_attempt(2)
    run("--stop")
    slurm.wait(lambda: not slurm.queue())
    run("--nodes 3", again=True)
    wait_for_attempt(0)
    run("^scancel JOB")
    slurm.wait(lambda: not slurm.queue())
    run("--print")
    run("--worker-jobs")
    assert left == []
    check_finished(hosts.folder)
