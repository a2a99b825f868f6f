"""Whether a Ray cluster answers, and what its nodes have; asking leaves nothing there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from magtkd.errors import StorageError, StorageLostError, SweepError
from magtkd.store import Store
from tune.cluster import (
    Node,
    NodeReport,
    chosen_address,
    live_nodes,
    ray_cluster,
    report_nodes,
    shared_token,
)
from tune.doctor.outcome import Found, Outcome

__all__ = ["check_cluster"]


def check_cluster(
    address: str | None, storage: str | None, paths: Sequence[str]
) -> Iterator[tuple[str, Found]]:
    """Whether the cluster at an address answers, and what each node has: a name and what was found
    for each. Without an address a sweep starts Ray here, which takes seconds, so that it is not
    tried.

    Args:
        address: HOST:PORT or `auto`; None for RAY_ADDRESS.
        storage: the storage that every node must see; None where it cannot be used, so that no node
            is asked.
        paths: files and folders that every node must have.
    """
    place = chosen_address(address)
    if place == "local":
        message = "no --address: each sweep starts Ray on this machine (not tried here)"
        yield "cluster", (Outcome.OK, message)
        return
    notes: list[str] = []
    try:
        with ray_cluster(place, note=notes.append):
            nodes = live_nodes()
            found = (Outcome.WARNING if notes else Outcome.OK), _summary(nodes, notes)
            yield "cluster", found
            if storage is None:
                yield "nodes", (Outcome.PROBLEM, "not asked, as the storage cannot be used")
                return
            store = Store(storage)
            with shared_token(store, "doctor") as token_name:
                reports = report_nodes(nodes, store.address, token_name, list(paths))
            for node in nodes:
                if node.id in reports:
                    yield f"node {node.name}", _judge(node, reports[node.id])
    except SweepError as error:
        yield "cluster", (Outcome.PROBLEM, str(error))
    except (StorageError, StorageLostError) as error:
        yield "nodes", (Outcome.PROBLEM, str(error))


def _summary(nodes: Iterable[Node], notes: Sequence[str]) -> str:
    every = list(nodes)
    totals = {name: sum(node.totals.get(name, 0) for node in every) for name in ("CPU", "GPU")}
    parts = [f"{len(every)} node{'s' if len(every) > 1 else ''}"]
    parts += [f"{amount:g} {name}" for name, amount in totals.items()]
    return "; ".join([", ".join(parts), *notes])


def _judge(node: Node, report: NodeReport | str) -> Found:
    has = [node.address, node.has]
    if isinstance(report, str):
        way_out = "install the same there, or give --ship-code to the sweep"
        return Outcome.PROBLEM, f"{', '.join(has)}: {report}; {way_out}"
    has.append(f"Python {report.python}")
    has += [f"{name} {version}" for name, version in report.packages.items()]
    if report.storage_problem is not None:
        return Outcome.PROBLEM, (
            f"{', '.join(has)}: does not see the storage: {report.storage_problem}; mount the same "
            "folder there, or give an object store's address"
        )
    if report.absent:
        return Outcome.PROBLEM, (
            f"{', '.join(has)}: does not have {', '.join(report.absent)}; put it where every node "
            "has it"
        )
    has.append("sees the storage")
    return Outcome.OK, ", ".join(has)
