"""Ray: started on this machine, or joined at RAY_ADDRESS."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from magtkd.errors import SweepError, first_line

__all__ = ["driver_node", "ray_cluster"]

# Tune would write files of its own for each trial; everything in them is in the ledger.
_QUIET = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_DEDUP_LOGS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


@contextlib.contextmanager
def ray_cluster() -> Iterator[None]:
    """Ray for as long as the block lasts: the running cluster if this process has joined one, the
    one at RAY_ADDRESS, or one of this machine's own, without a dashboard.

    Raises:
        SweepError: RAY_ADDRESS cannot be reached.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS")
    try:
        if address:
            ray.init(address=address, log_to_driver=False, logging_level="error")
        else:
            with _unharmed_by_sigusr1():
                ray.init(
                    address="local",
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level="error",
                )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise SweepError(
            f"RAY_ADDRESS {address!r}: cannot be reached: {first_line(error)}; start Ray "
            "there, or unset it to use this machine"
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


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


def driver_node() -> Any:
    """Scheduling on the node of this process, which lives as long as the driver does."""
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
