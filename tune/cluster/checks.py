"""What the nodes of a cluster report, and which of them cannot be worked on."""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
import time
import uuid
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import (
    GetTimeoutError,
    NodeDiedError,
    RayError,
    RaySystemError,
    RayTaskError,
    RuntimeEnvSetupError,
    TaskUnschedulableError,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from magtkd.errors import SweepError, first_line, shorten
from magtkd.store import Store
from tune.cluster.nodes import Node, live_nodes
from tune.cluster.probe import NodeReport, report_node
from tune.cluster.shape import Shape

__all__ = [
    "Need",
    "check_nodes",
    "report_nodes",
    "shared_token",
]

REPORT_SECONDS = 120.0
"""How long a node may take to start a process and report."""


@dataclass(frozen=True, kw_only=True)
class Need:
    """A file or folder that a stage reads."""

    stage: str
    shape: Shape
    """What the stage's worker asks for."""
    name: str
    """The configuration's name for it."""
    path: str


@contextlib.contextmanager
def shared_token(store: Store, owner: str) -> Iterator[str]:
    """A file in the storage by which nodes show that they see it, for as long as the block lasts.

    Args:
        store: the storage.
        owner: whose file it is; files that it left before are removed.

    Returns:
        its name under the storage.

    Raises:
        StorageError: it could not be written.
    """
    for left in store.list_files("shared"):
        if left.rpartition("-")[0] == owner:
            store.remove_file(f"shared/{left}")
    name = f"shared/{owner}-{uuid.uuid4().hex}"
    folders = [store.local_path(folder) for folder in ("shared", "tmp", "")]
    made = [path for path in folders if path is not None and not path.exists()]
    store.write_file(name, b"")
    try:
        yield name
    finally:
        store.remove_file(name)
        for path in made:  # a dry run writes nothing else there
            with contextlib.suppress(OSError):  # it is not empty
                path.rmdir()


def report_nodes(
    nodes: Sequence[Node], storage_address: str, token_name: str, paths: Sequence[str]
) -> dict[str, NodeReport | str]:
    """What each node reports, or why it reports nothing, by its id. Nodes that died meanwhile are
    not in it."""
    task: Any = ray.remote(num_cpus=0, max_retries=0)(report_node)
    asked = {
        node.id: task.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)
        ).remote(storage_address, token_name, list(paths))
        for node in nodes
    }
    end = time.monotonic() + REPORT_SECONDS
    found: dict[str, NodeReport | str] = {}
    for node_id, answer in asked.items():
        try:
            found[node_id] = ray.get(answer, timeout=max(0.1, end - time.monotonic()))
        except (NodeDiedError, TaskUnschedulableError):
            continue
        except GetTimeoutError:
            found[node_id] = f"did not report within {REPORT_SECONDS:g} s"
        except RayError as error:
            found[node_id] = _reason(error)
    return found


def _reason(error: RayError) -> str:
    """Why the report failed, in one line."""
    cause = error.cause if isinstance(error, RayTaskError) else error
    if "No module named" in str(error):
        return "does not have magtkd"
    if isinstance(error, RuntimeEnvSetupError | RaySystemError):
        return f"cannot run magtkd: {first_line(error)}"
    return f"cannot run magtkd: {first_line(cause)}"


def check_nodes(
    store: Store,
    token_name: str,
    needs: Sequence[Need],
    shapes: Collection[Shape],
    *,
    ship_code: bool,
) -> list[str]:
    """Check that the nodes of the cluster can do the work of a sweep.

    Args:
        store: its storage.
        token_name: the file of `shared_token`.
        needs: what its stages read.
        shapes: what its workers ask for; a node where none fits gets no work.
        ship_code: whether magtkd is sent along.

    Returns:
        lines on what may be wrong.

    Raises:
        SweepError: a node would do wrong, or fail.
    """
    nodes = {node.id: node for node in live_nodes() if any(node.fits(shape) for shape in shapes)}
    paths = sorted({need.path for need in needs})
    reports = report_nodes(list(nodes.values()), store.address, token_name, paths)
    warnings: list[str] = []
    for node_id, report in reports.items():
        node = nodes[node_id]
        if isinstance(report, str):
            raise SweepError(f"node {node}: {report}; {_way_out(report)}")
        _check_storage(node, report, store.address)
        _check_paths(node, report, needs)
        warnings += _compare_versions(node, report, ship_code=ship_code)
    return warnings


def _way_out(problem: str) -> str:
    if problem == "does not have magtkd":
        return "install it there in the Python that runs Ray, or give --ship-code"
    return "look at Ray's logs there, or remove it from the cluster"


def _check_storage(node: Node, report: NodeReport, address: str) -> None:
    if report.storage_problem is not None:
        raise SweepError(
            f"node {node}: does not see the storage {address}: {report.storage_problem}; mount the "
            "same folder on every node, or give an object store's address"
        )


def _check_paths(node: Node, report: NodeReport, needs: Sequence[Need]) -> None:
    for need in needs:
        if need.path in report.absent and node.fits(need.shape):
            raise SweepError(
                f"node {node}: does not have {need.name} {shorten(need.path)}, which {need.stage} "
                "reads; put it where every node has it, and give its whole path"
            )


def _compare_versions(node: Node, report: NodeReport, *, ship_code: bool) -> list[str]:
    here = platform.python_version()
    if report.python.split(".")[:2] != here.split(".")[:2]:
        raise SweepError(
            f"node {node}: has Python {report.python}, and this machine {here}; start Ray there "
            "from the same Python"
        )
    warnings = []
    for name in ("ray", "magtkd", "torch"):
        if name == "magtkd" and ship_code:
            continue
        there, own = report.packages.get(name, "none"), importlib.metadata.version(name)
        if there == own:
            continue
        message = f"node {node}: has {name} {there}, and this machine {own}"
        if name == "ray" or there == "none":
            raise SweepError(f"{message}; install the same there")
        warnings.append(f"{message}; results may differ")
    return warnings
