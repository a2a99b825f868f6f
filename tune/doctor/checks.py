"""Checks of this machine before a sweep: versions, devices, storage, MLflow, Ray, environment.

No check leaves anything behind. Each gives one line; that of a problem has a way out.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from ray._common.utils import get_default_system_temp_dir

from magtkd.errors import StorageError, StorageLostError
from magtkd.store import Store
from tune.cluster import temporary_problem
from tune.doctor.cluster import check_cluster
from tune.doctor.outcome import Found, Outcome
from tune.doctor.tracking import check_tracking
from tune.ledger import is_remote, storage_root, tracking_uri
from tune.redact import reason, redact

__all__ = ["Check", "run_checks"]

PACKAGES = ("magtkd", "torch", "ray", "optuna", "mlflow", "transformers", "pyarrow")
SHOWN = (
    "RAY_ADDRESS",
    "MLFLOW_TRACKING_URI",
    "CUDA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
    "RAY_TMPDIR",
    "TMPDIR",
    "HF_HOME",
    "HF_HUB_OFFLINE",
    "TRANSFORMERS_OFFLINE",
    "MAGTKD_DATA",
)
# Only whether they are set: their values are secret.
SECRET = (
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "HF_TOKEN",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "GOOGLE_APPLICATION_CREDENTIALS",
)
LITTLE_DISK = 5 << 30
LITTLE_SHARED = 1 << 30
GIB = 1 << 30


@dataclass(frozen=True)
class Check:
    """What one check found; `message` of a warning or a problem ends with a way out."""

    name: str
    outcome: Outcome
    message: str


def run_checks(
    storage: str, address: str | None = None, paths: Sequence[str] = ()
) -> Iterator[Check]:
    """All checks, one after another; a check that breaks is a problem itself.

    Args:
        storage: where results go.
        address: the Ray cluster, as for a sweep.
        paths: files and folders that every node must have.
    """
    problems: set[str] = set()
    checks: dict[str, Callable[[], Found]] = {
        "python": _check_python,
        **{name: lambda name=name: _check_package(name) for name in PACKAGES},  # type: ignore[misc]
        "devices": _check_devices,
        "storage": lambda: _check_storage(storage),
        "tracking": lambda: _check_tracking(storage, is_usable="storage" not in problems),
        "shared memory": _check_shared_memory,
        "temporary files": _check_temporary,
        "encoders": _check_hub,
        "environment": _check_environment,
    }
    for name, check in checks.items():
        try:
            outcome, message = check()
        except Exception as error:
            outcome, message = (
                Outcome.PROBLEM,
                f"cannot be checked: {reason(error)}; see the others",
            )
        if outcome == Outcome.PROBLEM:
            problems.add(name)
        yield _made(name, outcome, message)
    try:
        # A storage that does not answer was waited for once.
        place = None if "storage" in problems else storage
        for name, (outcome, message) in check_cluster(address, place, paths):
            yield _made(name, outcome, message)
    except Exception as error:
        message = f"cannot be checked: {reason(error)}; see the others"
        yield _made("cluster", Outcome.PROBLEM, message)


def _made(name: str, outcome: Outcome, message: str) -> Check:
    return Check(name, outcome, " ".join(redact(message).split()))


# --- versions ---------------------------------------------------------------------------------


def _check_python() -> Found:
    version = platform.python_version()
    wanted = importlib.metadata.metadata("magtkd")["Requires-Python"]
    if not SpecifierSet(wanted).contains(version, prereleases=True):
        return Outcome.PROBLEM, f"{version}, but magtkd needs {wanted}; install another Python"
    return Outcome.OK, version


def _check_package(name: str) -> Found:
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Outcome.PROBLEM, "not installed; run pip install -e . in magtkd's folder"
    for line in importlib.metadata.requires("magtkd") or ():
        wanted = Requirement(line)
        is_wanted = wanted.marker is None or wanted.marker.evaluate({"extra": ""})
        if wanted.name == name and is_wanted:
            if not wanted.specifier.contains(version, prereleases=True):
                return (
                    Outcome.PROBLEM,
                    f"{version}, but magtkd needs {line}; run pip install '{line}'",
                )
            return Outcome.OK, f"{version} ({wanted.specifier})"
    return Outcome.OK, version


# --- this machine -----------------------------------------------------------------------------


def _check_devices() -> Found:
    import torch

    is_linux = hasattr(os, "sched_getaffinity")
    found = [f"{len(os.sched_getaffinity(0)) if is_linux else os.cpu_count()} CPU cores"]
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        found.append(f"GPU {index}: {device.name}, {device.total_memory / GIB:.1f} GiB")
    if len(found) == 1:
        found.append("no GPU")
        if shutil.which("nvidia-smi"):
            return Outcome.WARNING, (
                f"{', '.join(found)}, but there is an NVIDIA driver; "
                "install torch for CUDA, or look at CUDA_VISIBLE_DEVICES"
            )
    return Outcome.OK, ", ".join(found)


def _check_storage(storage: str) -> Found:
    try:
        store = Store(storage)
        store.check_writable()
    except (StorageError, StorageLostError) as error:
        return Outcome.PROBLEM, str(error)
    if "://" in store.address:
        return Outcome.OK, f"{store.address}: can be written"
    free = shutil.disk_usage(_existing(Path(store.address))).free
    if free < LITTLE_DISK:
        return Outcome.WARNING, (
            f"{store.address}: can be written, but has only {free / GIB:.1f} GiB free; "
            "make room, or choose another --storage"
        )
    return Outcome.OK, f"{store.address}: can be written, {free / GIB:.1f} GiB free"


def _check_tracking(storage: str, *, is_usable: bool) -> Found:
    has_root = is_usable or is_remote(storage)
    if not has_root and not os.environ.get("MLFLOW_TRACKING_URI"):
        message = "its database is in the storage, which cannot be used; see there"
        return Outcome.PROBLEM, message
    return check_tracking(tracking_uri(storage_root(storage)))


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _check_shared_memory() -> Found:
    try:
        free = shutil.disk_usage("/dev/shm").free
    except OSError:
        return Outcome.WARNING, "there is no /dev/shm, so Ray keeps features on the disk; mount one"
    if free < LITTLE_SHARED:
        return Outcome.WARNING, (
            f"{free / GIB:.1f} GiB, so Ray keeps features on the disk; "
            "give the container more, with docker run --shm-size=4g for one"
        )
    return Outcome.OK, f"{free / GIB:.1f} GiB free for features"


def _check_temporary() -> Found:
    if problem := temporary_problem():
        return Outcome.PROBLEM, problem
    folder = str(_existing(Path(get_default_system_temp_dir()).absolute()))
    free = shutil.disk_usage(folder).free
    if free < GIB:
        return Outcome.WARNING, f"{folder}: has only {free / GIB:.1f} GiB free; make room"
    return Outcome.OK, f"{folder}: {free / GIB:.1f} GiB free"


# --- environment ------------------------------------------------------------------------------


def _check_hub() -> Found:
    from huggingface_hub import constants

    cache = constants.HF_HUB_CACHE
    if constants.HF_HUB_OFFLINE or os.environ.get("TRANSFORMERS_OFFLINE") in {"1", "true", "True"}:
        return Outcome.OK, f"offline: only 'tiny', folders, and what {cache} has"
    return Outcome.OK, f"'tiny', folders, and models of the hub, kept in {cache}"


def _check_environment() -> Found:
    found = [f"{name}={os.environ[name]}" for name in SHOWN if os.environ.get(name)]
    found += [f"{name} is set" for name in SECRET if os.environ.get(name)]
    return Outcome.OK, ", ".join(found) or "nothing set"
