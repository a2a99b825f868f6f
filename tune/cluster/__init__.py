"""Ray: started on this machine or joined, its nodes, and what stages ask of them."""

from tune.cluster.local import driver_node, ray_cluster
from tune.cluster.nodes import Node, live_nodes, node_types
from tune.cluster.resources import check_resources, with_gpu_shares
from tune.cluster.shape import Shape, shape_of

__all__ = [
    "Node",
    "Shape",
    "check_resources",
    "driver_node",
    "live_nodes",
    "node_types",
    "ray_cluster",
    "shape_of",
    "with_gpu_shares",
]
