"""Ray: started on this machine or joined, what its nodes have, and what stages ask of it."""

from tune.cluster.local import driver_node, ray_cluster
from tune.cluster.probe import NodeReport, report_node
from tune.cluster.resources import Shape, check_resources, shape_of

__all__ = [
    "NodeReport",
    "Shape",
    "check_resources",
    "driver_node",
    "ray_cluster",
    "report_node",
    "shape_of",
]
