"""What a node of the cluster has, as the driver must know it before work goes there: versions, the
storage, the data.

`report_node` runs on any node, by itself; what the driver makes of the answers is in
`tune.cluster.nodes`.
"""

from __future__ import annotations

import importlib.metadata
import platform
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from magtkd.errors import StorageError, StorageLostError, first_line, shorten
from magtkd.store.files import Files

__all__ = ["PACKAGES", "NodeReport", "report_node"]

PACKAGES = ("magtkd", "ray", "torch")
"""Whose versions are compared."""


@dataclass(frozen=True, kw_only=True)
class NodeReport:
    """What a node has."""

    host: str
    """Its host name."""
    node_id: str
    """Ray's; empty outside Ray."""
    python: str
    """The version of Python, such as `3.11.9`."""
    packages: dict[str, str]
    """The versions of `PACKAGES`, by name; one that is not installed is not there."""
    storage_problem: str | None
    """Why the node does not see the driver's token in the storage; None where it does."""
    absent: tuple[str, ...]
    """Which of the paths do not exist there, or are empty folders."""

    def problem(self, storage_address: str) -> str:
        """Why nothing of the sweep can run there, in one line; empty where it can."""
        if self.storage_problem is not None:
            return (
                f"node {self.host}: does not see the storage {storage_address}: "
                f"{self.storage_problem}; mount the same folder on every node, or give an object "
                "store's address"
            )
        if self.absent:
            return (
                f"node {self.host}: does not have {shorten(self.absent[0])}, which stages read; "
                "put it where every node has it"
            )
        return ""


def report_node(storage_address: str, token_name: str, paths: Sequence[str]) -> NodeReport:
    """What the node of this process has. Loads no torch.

    Args:
        storage_address: the storage, as `Store.address` gives it.
        token_name: the name under it of a file that the driver wrote.
        paths: files and folders that work on this node reads.
    """
    import ray

    context = ray.get_runtime_context() if ray.is_initialized() else None
    return NodeReport(
        host=socket.gethostname(),
        node_id=context.get_node_id() if context else "",
        python=platform.python_version(),
        packages=_versions(),
        storage_problem=_storage_problem(storage_address, token_name),
        absent=tuple(path for path in paths if not _is_there(path)),
    )


def _is_there(path: str) -> bool:
    """Whether a path exists; a share that is not mounted leaves an empty folder in its place."""
    place = Path(path).expanduser()
    try:
        return next(place.iterdir(), None) is not None if place.is_dir() else place.exists()
    except OSError:
        return False


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _storage_problem(address: str, token_name: str) -> str | None:
    try:
        Files(address).read_file(token_name)
    except FileNotFoundError:
        return "it has a folder of its own there, or none"
    except (OSError, StorageError, StorageLostError) as error:
        return first_line(error)
    return None
