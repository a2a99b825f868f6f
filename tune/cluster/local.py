"""Ray: started on this machine, or joined at an address."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ray
from ray._private import worker
from ray.job_config import JobConfig
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import magtkd
import tune
from magtkd.errors import SweepError, first_line, shorten
from tune.cluster.address import find_cluster, in_mode, keep_token_private
from tune.cluster.start import start_here
from tune.redact import redact

__all__ = ["chosen_address", "driver_node", "ray_cluster"]

# Tune would write files of its own for each trial; everything in them is in the ledger.
_QUIET = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_DEDUP_LOGS": "1",
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


def chosen_address(address: str | None) -> str:
    """The address that is meant, where one may be given: it, or RAY_ADDRESS, or `local`."""
    return address or os.environ.get("RAY_ADDRESS") or "local"


@contextlib.contextmanager
def ray_cluster(
    address: str | None = None,
    *,
    ship_code: bool = False,
    note: Callable[[str], None] = lambda line: None,
) -> Iterator[None]:
    """Ray for as long as the block lasts: the running cluster if this process has joined one, the
    one at an address, or one of this machine's own, without a dashboard.

    Args:
        address: HOST:PORT, or `auto` for the Ray that runs on this machine; None for RAY_ADDRESS,
            and where that is not set, or `local`, for a Ray of this process's own.
        ship_code: send magtkd along, for nodes that do not have it.
        note: called with one line on which cluster was joined, where that is not clear.

    Raises:
        SweepError: the cluster cannot be joined, or Ray cannot start here.
        RayLostError: a Ray of this process's own did not come up in time.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    logging.getLogger("ray").setLevel(logging.ERROR)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    _silence_pushed_errors()
    if ray.is_initialized():
        yield
        return
    given_by = "--address" if address else "RAY_ADDRESS"
    address = chosen_address(address)
    options: dict[str, Any] = {
        "job_config": _Job(),
        "log_to_driver": False,
        "logging_level": "error",
        "runtime_env": {"py_modules": _packages()} if ship_code else None,
    }
    keep_token_private()
    with contextlib.ExitStack() as stack:
        if address == "local":
            start_here(options, note)
        else:
            found = find_cluster(address, note, given_by)
            stack.enter_context(in_mode(found.mode))
            try:
                ray.init(address=found.address, **options)
            except Exception as error:
                raise SweepError(
                    f"{given_by} {shorten(redact(address))}: cannot be joined: "
                    f"{first_line(error)}; start magtkd on its nodes"
                ) from None
        keep_token_private()
        try:
            yield
        finally:
            ray.shutdown()


class _Job(JobConfig):  # type: ignore[misc]
    """A job whose workers import what its driver imports.

    Ray puts the working directory of the driver first on its workers' path, so that a `tune.py`
    there would be imported instead of this package. Here it is on theirs only where it is on the
    driver's, and after the folders from which the driver imported these packages.
    """

    def __init__(self) -> None:
        own = (os.path.dirname(os.path.realpath(sys.argv[0])), os.getcwd())
        seen = {os.path.abspath(path) for path in sys.path}
        paths = [path for path in own if path in seen]
        if paths:
            paths += dict.fromkeys(str(Path(package).parent) for package in _packages())
        # Workers put each before the one that they got before it.
        super().__init__(_py_driver_sys_path=paths)

    def _runtime_env_has_working_dir(self) -> bool:
        return True  # then Ray adds none of these directories itself


def _packages() -> list[str]:
    """The folders of the packages that this process runs."""
    return [str(Path(package.__file__ or "").parent) for package in (magtkd, tune)]


def _silence_pushed_errors() -> None:
    """Keep off stdout what the cluster's nodes push to drivers: pages of a lost raylet's log, and
    how many processes were started. There is no option; Ray's debugger uses this one, too."""
    worker._worker_logs_enabled = False


def driver_node() -> Any:
    """Scheduling on the node of this process, which lives as long as the driver does."""
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
