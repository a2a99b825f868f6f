"""How many trials there may be at a time: each is a process on the driver's node."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import ray

from magtkd.errors import SweepError
from tune.cluster import live_nodes
from tune.config import SweepConfig

__all__ = ["free_bytes", "trials_at_a_time"]

TRIAL_BYTES = 150 << 20
"""What a trial's process takes, what it shares with others aside (`benchmarks/trial_cost.py`)."""
SHARE = 0.75
"""Of the free memory; engine, driver and perhaps workers need some, too."""
MEMINFO = Path("/proc/meminfo")


def free_bytes() -> float:
    """Memory for further processes on the driver's node: what Ray found there when it started,
    which heeds a container's limit, or less where less is free by now."""
    own = ray.get_runtime_context().get_node_id()
    totals = (node.totals.get("memory", 0.0) for node in live_nodes() if node.id == own)
    found = next(totals, 0.0) or float("inf")
    try:
        lines = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
        return min(found, 1024.0 * int(lines["MemAvailable"].split()[0]))
    except (OSError, KeyError, ValueError):
        return found  # another system than Linux


def trials_at_a_time(sweep: SweepConfig, free: float) -> tuple[int, str]:
    """How many trials of a sweep may run at a time.

    Args:
        sweep: the sweep.
        free: bytes of memory for them and what runs beside them.

    Returns:
        the number, and a warning; empty where there is room for as many as asked for.
    """
    asked, room = sweep.search.max_concurrent, float("inf")
    wanted = min(asked, sweep.search.num_trials)
    if free < float("inf"):
        room = max(1, int(SHARE * free) // TRIAL_BYTES)
    if room >= wanted:
        return asked, ""
    needs = f"{wanted} trials at a time need {wanted * TRIAL_BYTES / SHARE / (1 << 30):.1f} GiB"
    warning = f"search.max_concurrent: {needs}, and {free / (1 << 30):.1f} GiB are free on the node"
    try:
        sweep.scheduler.check(replace(sweep.problem, max_concurrent=int(room)))
    except SweepError:
        kind = sweep.scheduler.kind
        return asked, f"{warning}; scheduler {kind} needs them all: take fewer, or a larger node"
    return int(room), f"{warning}; {room} run at a time"
