"""What is asked of Slurm, and for which sweep."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from magtkd.errors import SweepError, shorten
from tune.ledger import SweepLayout

__all__ = ["JobRequest", "Sweep"]

SIGNAL_SECONDS = 120
"""How long before the time limit a job gets the signal to save what runs."""
ACCELERATOR = "accelerator_type:"
"""Before a type's name, Ray's resource for it."""
_TIME = re.compile(r"(\d+-)?(\d+)(:\d{1,2}){0,2}|UNLIMITED|INFINITE", re.IGNORECASE)
_MEMORY = re.compile(r"(\d+)([KMGT]?)", re.IGNORECASE)
_GPUS = re.compile(r"(?:([A-Za-z][\w.-]*):)?(\d+)")
_OPTION = re.compile(r"(--[a-z][a-z-]*)(=.*)?", re.DOTALL)
_OWN = ("--job-name", "--comment", "--array", "--output", "--open-mode", "--chdir", "--wrap")


@dataclass(frozen=True, kw_only=True)
class JobRequest:
    """What a job asks for, by the names of sbatch's options. Raises SweepError for values that
    Slurm would take for something else, or find out late."""

    nodes: int = 1
    gpus_per_node: str | None = None
    """A number, or TYPE:NUMBER."""
    cpus_per_node: int | None = None
    mem: str | None = None
    """Per node, in MiB, or with K, M, G, T."""
    time: str | None = None
    partition: str | None = None
    account: str | None = None
    options: Sequence[str] = ()
    """Further options of sbatch, each as `--option=value`."""

    def __post_init__(self) -> None:
        if self.nodes < 1:
            raise SweepError(f"--nodes {self.nodes}: a job has at least one node; give 1 or more")
        if self.cpus_per_node is not None and self.cpus_per_node < 1:
            raise SweepError(
                f"--cpus-per-node {self.cpus_per_node}: a node has at least one CPU; give 1 or more"
            )
        self._check("--gpus-per-node", self.gpus_per_node, _GPUS, "NUMBER or TYPE:NUMBER")
        self._check("--mem", self.mem, _MEMORY, "a number of MiB, or one with K, M, G or T")
        self._check("--time", self.time, _TIME, "minutes, HH:MM:SS or DAYS-HH:MM:SS")
        minutes = self.minutes
        if minutes is not None and minutes * 60 <= SIGNAL_SECONDS:
            raise SweepError(
                f"--time {self.time}: too short, since {SIGNAL_SECONDS} seconds before the end the "
                "sweep saves what runs; give three minutes or more"
            )
        for option in self.options:
            found = _OPTION.fullmatch(option)
            if found is None:
                raise SweepError(
                    f"--sbatch {shorten(option)!r}: not an option of sbatch; give --sbatch "
                    '"--option=value"'
                )
            if (name := found[1]) in _OWN:
                raise SweepError(
                    f"--sbatch {shorten(option)!r}: {name} is magtkd's own, by which it finds its "
                    "jobs and their logs; leave it out"
                )
        for value in (self.partition, self.account, *self.options):
            if value is not None and not value.isprintable():
                raise SweepError(f"{shorten(value)!r}: has a line break or the like; leave it out")

    @staticmethod
    def _check(option: str, value: str | None, form: re.Pattern[str], words: str) -> None:
        if value is not None and not form.fullmatch(value):
            raise SweepError(f"{option} {shorten(value)!r}: not what Slurm takes; give {words}")

    @property
    def minutes(self) -> float | None:
        """The time limit; None where there is none, or the partition's holds."""
        if self.time is None or not self.time[0].isdigit():
            return None
        days, _, rest = self.time.rpartition("-")
        parts = [int(part) for part in rest.split(":")]
        if days:  # days-hours[:minutes[:seconds]]
            hours, minutes, seconds = (*parts, 0, 0)[:3]
        elif len(parts) == 3:
            hours, minutes, seconds = parts
        else:  # minutes[:seconds]
            hours, (minutes, seconds) = 0, (*parts, 0)[:2]
        return int(days or 0) * 1440 + hours * 60 + minutes + seconds / 60

    @property
    def num_gpus(self) -> int | None:
        """GPUs of a node; None where nothing was said of them."""
        found = _GPUS.fullmatch(self.gpus_per_node) if self.gpus_per_node else None
        return int(found[2]) if found else None

    @property
    def gpu_resources(self) -> dict[str, int]:
        """What Ray is told of the type of a node's GPUs, where one was given: the accelerator type
        of Ray's that it names, else as many of a custom resource of this name."""
        found = _GPUS.fullmatch(self.gpus_per_node) if self.gpus_per_node else None
        if found is None or found[1] is None or int(found[2]) == 0:
            return {}
        known = _accelerator(found[1])
        return {f"{ACCELERATOR}{known}": 1} if known else {found[1]: int(found[2])}

    @property
    def memory_bytes(self) -> int | None:
        """Memory of a node."""
        found = _MEMORY.fullmatch(self.mem) if self.mem else None
        if found is None:
            return None
        return int(found[1]) << {"K": 10, "M": 20, "": 20, "G": 30, "T": 40}[found[2].upper()]


def _accelerator(gres_type: str) -> str | None:
    """Ray's name for a type of Slurm's, such as `a100` or `nvidia_a100-sxm4-80gb`."""
    # Ray takes a second to load, and most jobs give no type.
    from ray.util.accelerators import accelerators

    names = [name for key, name in vars(accelerators).items() if key.isupper()]
    known = {name.lower(): name for name in names if isinstance(name, str)}
    whole = re.sub(r"[_.]", "-", gres_type.lower())
    return next((known[part] for part in (whole, *whole.split("-")) if part in known), None)


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Which sweep is run, and how: what `magtkd sweep` is given."""

    name: str
    text: str
    """Its configuration as YAML: the file that it was read from may change while a job waits."""
    storage: str = "magtkd-results"
    has_tracking: bool = True

    @property
    def layout(self) -> SweepLayout:
        """Its places."""
        return SweepLayout.of(self.storage, self.name)

    @property
    def logs(self) -> Path:
        """The folder with the logs of its jobs."""
        return self.layout.folder / "slurm"

    @property
    def file(self) -> Path:
        """What the driver reads."""
        return self.logs / "sweep.yaml"

    def make_folder(self) -> None:
        """Make the folder of logs. Slurm opens a job's log before anything of ours runs, and says
        nothing where it cannot.

        Raises:
            SweepError: it cannot be made.
        """
        try:
            self.logs.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unwritable(error) from None

    def write(self) -> None:
        """Make the folder of logs, with the sweep in it.

        Raises:
            SweepError: it cannot be written.
        """
        self.make_folder()
        try:
            self.file.write_text(self.text, encoding="utf-8")
        except OSError as error:
            raise self._unwritable(error) from None

    def _unwritable(self, error: OSError) -> SweepError:
        return SweepError(
            f"{self.logs}: cannot be written: {error.strerror}; choose another --storage"
        )

    def arguments(self) -> list[str]:
        """What follows `magtkd sweep` to start it, or to continue it where it was begun."""
        where = self.storage if self.layout.remote else str(self.layout.root)
        tracking = [] if self.has_tracking else ["--no-tracking"]
        return [os.path.abspath(self.file), "--resume-or-start", f"--storage={where}", *tracking]
