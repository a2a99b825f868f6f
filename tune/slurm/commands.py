"""Slurm's own commands: what is submitted, what is in the queue, what is to end."""

from __future__ import annotations

import itertools
import os
import shlex
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass

from magtkd.errors import ResumableError, SweepError

__all__ = ["Job", "cancel", "jobs_of", "queued", "stop_jobs", "submit"]

SECONDS = 60.0
"""How long the controller may take to answer."""
_KEPT = ("SLURM_CONF", "SLURM_JWT")
_ASKS = "#SBATCH "


@dataclass(frozen=True)
class Job:
    """A job in the queue."""

    id: str
    state: str
    """Slurm's word: PENDING, RUNNING, COMPLETING, ..."""
    name: str
    comment: str


def submit(script: str, *, test_only: bool = False) -> str:
    """Submit a batch script.

    Args:
        script: its text.
        test_only: only ask whether it would be accepted.

    Returns:
        the job's id.

    Raises:
        SweepError: there is no sbatch here, or it refuses the script.
        ResumableError: Slurm does not answer.
    """
    # What a script asks for is overruled by sbatch's environment variables, its options are not.
    lines = itertools.takewhile(lambda line: line.startswith("#"), script.splitlines())
    asked = [shlex.split(one.removeprefix(_ASKS)) for one in lines if one.startswith(_ASKS)]
    options = ["--test-only"] if test_only else ["--parsable"]
    answer = _run("sbatch", *options, *itertools.chain.from_iterable(asked), text=script)
    if answer.returncode:
        raise SweepError(f"sbatch: {_message('sbatch', answer.stderr)}; change the job's options")
    return answer.stdout.strip().partition(";")[0]


def queued(name: str, comment: str) -> list[Job]:
    """This user's jobs of a name and a comment that have not ended.

    Raises:
        SweepError: there is no squeue here.
        ResumableError: Slurm does not answer.
    """
    answer = _run("squeue", "--noheader", "--me", f"--name={name}", "--format=%i|%T|%k")
    if answer.returncode:
        raise ResumableError(
            f"squeue: {_message('squeue', answer.stderr)}", "try again when Slurm answers"
        )
    jobs = (line.split("|", 2) for line in answer.stdout.splitlines())
    return [Job(id, state, name, rest) for id, state, rest in jobs if rest == comment]


def jobs_of(name: str, place: str) -> list[Job]:
    """The jobs that run a sweep: this user's, by the sweep's name and place.

    Raises:
        SweepError, ResumableError: as for `queued`.
    """
    return queued(f"magtkd-{name}", place)


def stop_jobs(name: str, place: str) -> list[str]:
    """End the jobs that run a sweep: what runs is saved first, and none is requeued.

    Returns:
        a line on each.

    Raises:
        SweepError, ResumableError: as for `queued`.
    """
    lines = []
    for job in jobs_of(name, place):
        # From now on it is not requeued, so that the state which is read after this holds.
        _run("scontrol", "update", f"JobId={job.id}", "Requeue=0")
        for now in jobs_of(name, place):
            if now.id != job.id:
                continue
            if now.state == "RUNNING":
                _run("scancel", "--batch", "--signal=USR1", job.id)
                lines.append(f"job {job.id}: saves what runs, then ends")
            else:
                cancel([job.id])
                lines.append(f"job {job.id}: cancelled; it was {now.state.lower()}")
    return lines


def cancel(jobs: Iterable[str]) -> None:
    """End jobs at once. One that has ended already is no error."""
    if ids := list(jobs):
        _run("scancel", *ids)


def _run(program: str, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            [program, *arguments],
            input=text,
            capture_output=True,
            text=True,
            env=_environment(),
            timeout=SECONDS,
            check=False,
        )
    except FileNotFoundError:
        raise SweepError(
            f"{program}: no such command on PATH; run this where Slurm's commands are, such as a "
            "login node"
        ) from None
    except subprocess.TimeoutExpired:
        raise ResumableError(
            f"{program}: no answer within {SECONDS:.0f} s", "try again when Slurm answers"
        ) from None


def _environment() -> dict[str, str]:
    """Without what Slurm sets in a job's shell, such as its CPUs: it would hold in the next job;
    and without what would hide jobs."""
    return {
        name: value
        for name, value in os.environ.items()
        if name in _KEPT or not name.startswith(("SLURM_", "SRUN_", "SQUEUE_", "SCANCEL_"))
    }


def _message(program: str, stderr: str) -> str:
    """What a command complains about, in one line."""
    lines = (line.removeprefix(f"{program}: ").strip() for line in stderr.splitlines())
    return "; ".join(line.removeprefix("error: ") for line in lines if line)[:300] or "failed"
