"""Where Ray's head listens. `python -m tune.slurm.head JOB`, on its node in a job, prints address,
port and, where it is needed, one more option of `ray start`."""

from __future__ import annotations

import socket
import sys

import ray
from ray._private.utils import get_ray_client_dependency_error

__all__ = ["free_port", "head_place"]

FIRST, COUNT = 20_000, 12_000
"""Above the ports that Ray's defaults use, and below those that the system gives away."""


def free_port(number: int) -> int:
    """A free port, from the one that belongs to a number on: those of one node who ask for one at
    the same time begin at different ones."""
    for step in range(COUNT):
        port = FIRST + (number + step) % COUNT
        with socket.socket() as tried:
            try:
                tried.bind(("", port))
            except OSError:
                continue
            return port
    raise OSError("no port is free")


def head_place(number: int) -> tuple[str, int, list[str]]:
    """Address, port, and further options of `ray start --head`, for a job or a process."""
    # With its packages there, Ray starts a server for remote clients, at the same port for everyone
    # if none is given, and Ray ends with it. Without them the option is refused.
    has_clients = get_ray_client_dependency_error() is None
    port = free_port(2 * number)
    options = [f"--ray-client-server-port={free_port(2 * number + 1)}"] if has_clients else []
    return ray.util.get_node_ip_address(), port, options


if __name__ == "__main__":
    address, port, options = head_place(int(sys.argv[1]))
    print(address, port, *options)
