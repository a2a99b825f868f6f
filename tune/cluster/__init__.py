"""Ray: started on this machine or joined, its nodes, and what stages ask of them."""

from tune.cluster.address import RunningCluster, find_cluster
from tune.cluster.checks import Need, check_nodes, report_nodes, shared_token
from tune.cluster.local import chosen_address, driver_node, ray_cluster
from tune.cluster.nodes import (
    AUTOSCALING_CONFIG,
    Node,
    is_fixed,
    live_nodes,
    node_types,
    wait_for_nodes,
)
from tune.cluster.probe import NodeReport, report_node
from tune.cluster.resources import check_resources, with_gpu_shares
from tune.cluster.shape import Shape, shape_of
from tune.cluster.start import temporary_problem

__all__ = [
    "AUTOSCALING_CONFIG",
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
    "is_fixed",
    "live_nodes",
    "node_types",
    "ray_cluster",
    "report_node",
    "report_nodes",
    "shape_of",
    "shared_token",
    "temporary_problem",
    "wait_for_nodes",
    "with_gpu_shares",
]
