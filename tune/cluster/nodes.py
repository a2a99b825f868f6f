"""The nodes of a cluster: those that are alive, and those that its autoscaler can add."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
import yaml

from magtkd.config import NodeType
from magtkd.errors import ResumableError
from tune.cluster.shape import A_LITTLE, ACCELERATOR, Shape

__all__ = [
    "AUTOSCALING_CONFIG",
    "Node",
    "is_fixed",
    "live_nodes",
    "node_types",
    "wait_for_nodes",
]

POLL_SECONDS = 1.0
SAY_SECONDS = 60.0

AUTOSCALING_CONFIG = "MAGTKD_AUTOSCALING_CONFIG"
"""Names the autoscaler's file in the environment of a head that magtkd starts itself."""
BOOTSTRAP = Path("~/ray_bootstrap_config.yaml")
"""Where `ray up` puts its file on the head."""
KUBERAY = "KUBERAY_GEN_RAY_START_CMD"
"""What KubeRay sets in its pods."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """A node, or one that could be added, and what it has by Ray's names."""

    name: str
    totals: Mapping[str, float]
    labels: Mapping[str, str] = field(default_factory=dict)
    id: str = ""
    """Ray's; empty for one that could be added."""
    address: str = ""

    def fits(self, shape: Shape) -> bool:
        """Whether a worker of this shape fits, once nothing else runs there."""
        return not shape.lacks(self.totals) and shape.is_labelled(self.labels)

    def room_for(self, shape: Shape) -> int:
        """How many workers of this shape fit, once nothing else runs there."""
        if not self.fits(shape):
            return 0
        each = [self.totals[name] / amount + 1e-6 for name, amount in shape.amounts]
        return int(min(each, default=1.0))

    @property
    def accelerator(self) -> str:
        """The kind of its accelerator by Ray's name; empty where it has none."""
        found = (name for name in self.totals if name.startswith(ACCELERATOR))
        return next(found, "").removeprefix(ACCELERATOR)

    @property
    def has(self) -> str:
        """What it has, in words."""
        memory = self.totals.get("memory", 0.0)
        parts = [f"{self.totals.get(name, 0.0):g} {name}" for name in ("CPU", "GPU")]
        parts += [self.accelerator] if self.accelerator else []
        return ", ".join(parts + ([f"{memory / (1 << 30):.3g} GiB"] if memory else []))

    def __str__(self) -> str:
        return f"{self.name} ({self.address})" if self.address else self.name


def live_nodes() -> tuple[Node, ...]:
    """The nodes that are alive, as Ray knows them now."""
    return tuple(
        Node(
            name=node["NodeManagerHostname"],
            totals=node["Resources"],
            labels=node.get("Labels") or {},
            id=node["NodeID"],
            address=node["NodeManagerAddress"],
        )
        for node in ray.nodes()
        if node["Alive"]
    )


def wait_for_nodes(count: int, seconds: float, note: Callable[[str], None]) -> None:
    """Wait until so many nodes are alive.

    Args:
        count: how many.
        seconds: for how long.
        note: called with a line on what is waited for, at most once a minute.

    Raises:
        ResumableError: they are not, when the time is up.
    """
    start = time.monotonic()
    noted = -SAY_SECONDS
    while (alive := len(live_nodes())) < count:
        waited = time.monotonic() - start
        if waited >= seconds:
            raise ResumableError(
                f"--wait-nodes {count}: {alive} of {count} nodes are alive after {seconds:g} s; "
                "start the others, or ask for fewer"
            )
        if waited - noted >= SAY_SECONDS:
            note(f"waiting for nodes: {alive} of {count} are alive; {seconds - waited:.0f} s left")
            noted = waited
        time.sleep(min(POLL_SECONDS, max(0.0, seconds - waited)))


def node_types(given: Mapping[str, NodeType], bootstrap: Path = BOOTSTRAP) -> tuple[Node, ...]:
    """What the cluster's autoscaler can add: as given, else by the autoscaler's own file, of magtkd
    or as `ray up` left it where this process runs on its head; none where neither says it.

    Ray does not tell a driver which node types its autoscaler has.
    """
    if given:
        return tuple(_of_section(name, one) for name, one in given.items())
    bootstrap = Path(os.environ.get(AUTOSCALING_CONFIG) or bootstrap)
    try:
        tree = yaml.safe_load(bootstrap.expanduser().read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return ()
    try:
        return tuple(_of_ray_s(name, one) for name, one in _added(tree))
    except (AttributeError, TypeError, ValueError):
        return ()  # what Ray wrote for itself may change with its version


def is_fixed(given: Mapping[str, NodeType]) -> bool:
    """Whether the cluster stays as it is, as far as its driver can know: its nodes are named
    nowhere, and it is none of KubeRay's, whose autoscaler cannot be seen from a pod."""
    return not node_types(given) and KUBERAY not in os.environ


def _added(tree: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """The node types of Ray's file that can be added."""
    types = tree.get("available_node_types") or {}
    return [(str(name), one) for name, one in types.items() if _can_be_added(one)]


def _of_ray_s(name: str, node_type: Mapping[str, Any]) -> Node:
    totals = {key: float(amount) for key, amount in (node_type.get("resources") or {}).items()}
    return Node(name=name, totals=totals, labels=node_type.get("labels") or {})


def _can_be_added(node_type: Mapping[str, Any]) -> bool:
    maximum = node_type.get("max_workers")
    return maximum is None or maximum > 0


def _of_section(name: str, section: NodeType) -> Node:
    memory = float("inf") if section.memory is None else float(section.memory)
    totals = {"CPU": section.cpu, "GPU": section.gpu, "memory": memory, **section.custom}
    if section.accelerator_type is not None:
        totals[f"{ACCELERATOR}{section.accelerator_type}"] = A_LITTLE
    return Node(name=name, totals=totals, labels=section.labels)
