"""Whether a Ray cluster answers; asking creates nothing there."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from urllib.parse import urlsplit

from tune.doctor.outcome import Found, Outcome
from tune.redact import reason, redact

__all__ = ["check_cluster"]

CONNECT_SECONDS = 5
CLUSTER_SECONDS = 60
# In a process of its own: Ray's attempts to connect cannot be interrupted.
_ASK_RAY = """
import json, ray
ray.init(log_to_driver=False, logging_level="error")
alive = [node for node in ray.nodes() if node["Alive"]]
print(json.dumps([len(alive), ray.cluster_resources()]))
"""


def check_cluster(address: str) -> Found:
    """Whether the cluster at `RAY_ADDRESS` answers, and what it has. Without an address a sweep
    starts Ray here, which takes seconds, so that it is not tried."""
    if not address or address == "local":
        return (
            Outcome.OK,
            "RAY_ADDRESS is not set: each sweep starts Ray on this machine (not tried here)",
        )
    shown, way_out = redact(address), "start Ray there, or unset RAY_ADDRESS to use this machine"
    try:
        _connect(address)
        answer = subprocess.run(
            [sys.executable, "-c", _ASK_RAY],
            env=os.environ | {"RAY_ADDRESS": address, "RAY_USAGE_STATS_ENABLED": "0"},
            capture_output=True,
            text=True,
            timeout=CLUSTER_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Outcome.PROBLEM, f"{shown}: no answer in {CLUSTER_SECONDS} s; {way_out}"
    except OSError as error:
        return Outcome.PROBLEM, f"{shown}: {reason(error)}; {way_out}"
    if answer.returncode:
        last = (answer.stderr.strip().splitlines() or ["no reason given"])[-1]
        return Outcome.PROBLEM, f"{shown}: cannot be joined: {redact(last)[:200]}; {way_out}"
    num_nodes, resources = json.loads(answer.stdout.splitlines()[-1])
    return (
        Outcome.OK,
        f"{shown}: {num_nodes} node{'s' if num_nodes > 1 else ''}, {_amounts(resources)}",
    )


def _connect(address: str) -> None:
    """Raise at once where nothing listens: Ray itself would retry for most of a minute."""
    place = urlsplit(address if "://" in address else f"//{address}").netloc
    host, _, port = place.rpartition("@")[2].rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()


def _amounts(resources: dict[str, float]) -> str:
    parts = [f"{resources.get(name, 0):g} {name}" for name in ("CPU", "GPU")]
    return ", ".join(parts)
