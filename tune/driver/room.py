"""Where trials live, and how many there may be at a time: each is a process.

They are on the driver's node, which no autoscaler removes: a node that holds one is never idle.
Where that is too small and the cluster is of a fixed size, they are on all of its nodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import ray

from magtkd.errors import SweepError
from tune.cluster import is_fixed, live_nodes
from tune.config import SweepConfig

__all__ = ["TrialRoom", "free_bytes", "room_for_trials", "trials_at_a_time"]

TRIAL_BYTES = 150 << 20
"""What a trial's process takes, what it shares with others aside (`benchmarks/trial_cost.py`)."""
SHARE = 0.75
"""Of the free memory; engine, driver and perhaps workers need some, too."""
_ASKED = int(TRIAL_BYTES / SHARE)
"""What a trial asks Ray for where trials are on all nodes, so that these keep the rest."""
MEMINFO = Path("/proc/meminfo")


@dataclass(frozen=True)
class TrialRoom:
    """How many trials run at a time, what each asks Ray for, and a warning; empty where there is
    room for as many as asked for."""

    count: int
    resources: Mapping[str, float]
    warning: str = ""


def room_for_trials(sweep: SweepConfig, *, shares_files: bool) -> TrialRoom:
    """The room for the trials of a sweep on its cluster.

    Args:
        sweep: the sweep.
        shares_files: whether the nodes see the folder in which Ray Tune keeps what trials hand on.
    """
    free = free_bytes()
    count, warning = trials_at_a_time(sweep, free)
    can_spread = (
        (shares_files or not sweep.scheduler.shares_sessions)
        and is_fixed(sweep.resources.node_types)
        # A stage that asks Ray for memory might find all of it taken by trials that wait for it.
        and not any(getattr(sweep.resources, stage).memory for stage in sweep.resources.STAGES)
    )
    elsewhere = sum(memory // _ASKED for memory in _memory_elsewhere()) if can_spread else 0
    if warning and elsewhere:
        count, warning = trials_at_a_time(sweep, free + elsewhere * _ASKED, "nodes")
        return TrialRoom(count, {"memory": _ASKED}, warning)
    # Tune wants a request that is not empty, and 0.001 CPU for each of two trials would leave room
    # for one worker on two CPUs.
    return TrialRoom(count, {f"node:{ray.util.get_node_ip_address()}": 0.001}, warning)


def _memory_elsewhere() -> list[float]:
    own = ray.get_runtime_context().get_node_id()
    return [node.totals.get("memory", 0.0) for node in live_nodes() if node.id != own]


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


def trials_at_a_time(sweep: SweepConfig, free: float, place: str = "node") -> tuple[int, str]:
    """How many trials of a sweep may run at a time.

    Args:
        sweep: the sweep.
        free: bytes of memory for them and what runs beside them.
        place: where that is, in words.

    Returns:
        the number, and a warning; empty where there is room for as many as asked for.
    """
    asked, room = sweep.search.max_concurrent, float("inf")
    wanted = min(asked, sweep.search.most_trials or asked)
    if free < float("inf"):
        room = max(1, int(SHARE * free) // TRIAL_BYTES)
    if room >= wanted:
        return asked, ""
    needs = f"{wanted} trials at a time need {wanted * TRIAL_BYTES / SHARE / (1 << 30):.1f} GiB"
    warning = (
        f"search.max_concurrent: {needs}, and {free / (1 << 30):.1f} GiB are free on the {place}"
    )
    try:
        sweep.scheduler.check(replace(sweep.problem, max_concurrent=int(room)))
    except SweepError:
        kind = sweep.scheduler.kind
        return asked, f"{warning}; scheduler {kind} needs them all: take fewer, or a larger node"
    return int(room), f"{warning}; {room} run at a time"
