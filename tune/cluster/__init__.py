"""Ray: started on this machine or joined, what its nodes have, and what stages ask of it."""

from tune.cluster.address import RunningCluster, find_cluster
from tune.cluster.local import chosen_address, driver_node, ray_cluster
from tune.cluster.nodes import (
    Need,
    Node,
    check_nodes,
    live_nodes,
    report_nodes,
    shared_token,
    wait_for_nodes,
)
from tune.cluster.probe import NodeReport, report_node
from tune.cluster.resources import Shape, check_resources, shape_of

__all__ = [
    "Need",
    "Node",
    "NodeReport",
    "RunningCluster",
    "Shape",
    "check_nodes",
    "check_resources",
    "chosen_address",
    "driver_node",
    "find_cluster",
    "live_nodes",
    "ray_cluster",
    "report_node",
    "report_nodes",
    "shape_of",
    "shared_token",
    "wait_for_nodes",
]
