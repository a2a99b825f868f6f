"""What the driver does when Ray goes away: it ends at once, in a way that can be resumed.

Without its node's raylet or the cluster's control service (GCS), Ray ends the driver's process
from within, some 10 and 60 seconds later, with a log and exit code 1. This is sooner.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator

import ray

from magtkd.errors import RayLostError

__all__ = ["lifeline"]

INTERVAL_SECONDS = 1.0
PATIENCE_SECONDS = {"its node's raylet": 4.0, "the control service (GCS)": 45.0}
"""For how long each may refuse connections. A raylet is never started again, a GCS may be."""


@contextlib.contextmanager
def lifeline(on_lost: Callable[[RayLostError], int]) -> Iterator[None]:
    """Watch Ray for as long as the block lasts.

    Args:
        on_lost: called in another thread once Ray is gone, to record what can be; the process then
            ends with the exit code that it returns.
    """
    closing = threading.Event()
    addresses = dict(zip(PATIENCE_SECONDS, _addresses(), strict=True))
    thread = threading.Thread(
        target=_watch, args=(addresses, closing, on_lost), name="lifeline", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        closing.set()


def _addresses() -> tuple[tuple[str, int], tuple[str, int]]:
    """Where the raylet of this node and the GCS listen."""
    context = ray.get_runtime_context()
    here = next(node for node in ray.nodes() if node["NodeID"] == context.get_node_id())
    host, _, port = context.gcs_address.rpartition(":")
    return (here["NodeManagerAddress"], here["NodeManagerPort"]), (host.strip("[]"), int(port))


def _watch(
    addresses: dict[str, tuple[str, int]],
    closing: threading.Event,
    on_lost: Callable[[RayLostError], int],
) -> None:
    answered = dict.fromkeys(addresses, time.monotonic())
    while not closing.wait(INTERVAL_SECONDS):
        for name, address in addresses.items():
            if _answers(address):
                answered[name] = time.monotonic()
            silent = time.monotonic() - answered[name]
            if silent > PATIENCE_SECONDS[name] and not closing.is_set():
                place = f"{address[0]}:{address[1]}"
                error = RayLostError(
                    f"Ray is gone: {name} at {place} has not answered for {silent:.0f} s",
                    "continue when there is a cluster again",
                )
                # Whatever else runs here waits for Ray, in vain.
                os._exit(on_lost(error))


def _answers(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=2).close()
    except TimeoutError:  # busy, or its network is
        return True
    except OSError:
        return False
    return True
