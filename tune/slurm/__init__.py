"""Sweeps under Slurm: as one job that continues itself, or with workers as jobs of their own
(`tune.slurm.worker_jobs`, which loads Ray)."""

from tune.slurm.commands import Job, jobs_of, stop_jobs, submit
from tune.slurm.request import JobRequest, Sweep
from tune.slurm.script import sweep_script

__all__ = ["Job", "JobRequest", "Sweep", "jobs_of", "stop_jobs", "submit", "sweep_script"]
