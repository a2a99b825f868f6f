"""Ray: started on this machine or joined, and what stages ask of it."""

from tune.cluster.local import driver_node, ray_cluster
from tune.cluster.resources import Shape, check_resources, shape_of

__all__ = ["Shape", "check_resources", "driver_node", "ray_cluster", "shape_of"]
