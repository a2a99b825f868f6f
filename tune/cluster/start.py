"""Ray on this machine alone: started, or one line on why it does not start."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import ray
from ray._common.utils import get_default_system_temp_dir

from magtkd.errors import MagtkdError, RayLostError, SweepError, first_line, shorten

__all__ = ["start_here", "temporary_problem"]

LONGEST_TEMPORARY = 107 - 68
"""The longest path of a socket, less /ray/session_DATE_TIME_PROCESS/sockets/plasma_store."""
LEAST_FILES = 256
LEAST_BYTES = 512 << 20
LEAST_DISK_BYTES = 100 << 20
GIB = 1 << 30
_WAY_OUT = "set RAY_TMPDIR=/tmp, or to another folder with a short path"


def temporary_problem() -> str | None:
    """What is wrong with the folder in which Ray makes its sockets and logs, and the way out."""
    folder = get_default_system_temp_dir()
    if len(os.fsencode(folder)) > LONGEST_TEMPORARY:
        size = len(os.fsencode(folder))
        return (
            f"{shorten(folder)}: too long for Ray's sockets ({size} characters, and "
            f"{LONGEST_TEMPORARY} fit); set RAY_TMPDIR=/tmp"
        )
    there = next(path for path in (Path(folder), *Path(folder).parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        return f"{folder}: cannot be written; {_WAY_OUT}"
    return None


def start_here(options: dict[str, Any], note: Callable[[str], None]) -> None:
    """Start a Ray of this process's own, without a dashboard. What takes Ray too long is tried once
    more, unless this machine lacks something.

    Args:
        options: further ones of `ray.init`.
        note: called with one line where it is tried again.

    Raises:
        SweepError: Ray cannot start here.
        RayLostError: it did not come up in time.
    """
    if problem := temporary_problem():
        raise SweepError(f"Ray: {problem}")
    for is_last in (False, True):
        try:
            with _unharmed_by_sigusr1():
                ray.init(address="local", include_dashboard=False, **options)
            return
        except Exception as error:
            with contextlib.suppress(Exception):
                ray.shutdown()
            found, scarce = _in_our_words(error), _scarce()
            if is_last or scarce or not isinstance(found, RayLostError):
                way_out = f"allow it more, or {_logs()}" if scarce else found.way_out
                raise type(found)("; ".join([found.reason, *scarce]), way_out) from None
            note(f"{found.reason}; trying once more")


def _in_our_words(error: Exception) -> MagtkdError:
    """Why Ray did not start, in one line."""
    reason = f"Ray: did not start here: {first_line(error)[:160]}"
    # Where its processes take longer than it waits for them, Ray raises a mere `Exception`, or a
    # `RuntimeError`.
    if "timed out" in str(error).lower():
        return RayLostError(reason, f"try again when this machine is less busy, or {_logs()}")
    return SweepError(reason, _logs())


def _logs() -> str:
    return f"look at Ray's logs in {get_default_system_temp_dir()}/ray"


def _scarce() -> list[str]:
    """What this process, or this machine, has less of than Ray needs, with figures: Ray itself has
    such reasons only in its logs."""
    found = []
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= files < LEAST_FILES:
        found.append(f"only {files} files may be open at a time (ulimit -n), of {LEAST_FILES}")
    space, _ = resource.getrlimit(resource.RLIMIT_AS)
    if space != resource.RLIM_INFINITY:
        found.append(f"a process may have only {space / GIB:.1f} GiB of addresses (ulimit -v)")
    free = psutil.virtual_memory().available
    if free < LEAST_BYTES:
        found.append(f"only {free >> 20} MiB of memory are free")
    for folder in (get_default_system_temp_dir(), "/dev/shm"):
        with contextlib.suppress(OSError):
            left = shutil.disk_usage(folder).free
            if left < LEAST_DISK_BYTES:
                found.append(f"{folder} has only {left >> 20} MiB free")
    return found


@contextlib.contextmanager
def _unharmed_by_sigusr1() -> Iterator[None]:
    """Processes that are started in the block ignore SIGUSR1: Slurm sends it to all of a job's, and
    those of Ray must live until sessions are saved."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)
