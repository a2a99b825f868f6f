"""What stages ask of the cluster, by Ray's names."""

from __future__ import annotations

from collections.abc import Mapping

from magtkd.config import Resources, StageResources
from magtkd.errors import SweepError

__all__ = ["Shape", "check_resources", "shape_of"]

Shape = tuple[tuple[str, float], ...]
"""What a worker asks of the cluster: sorted (resource, amount) pairs by Ray's names."""

FIELDS = {"CPU": "cpu", "GPU": "gpu", "memory": "memory"}


def shape_of(resources: Resources) -> Shape:
    """A stage's resources by Ray's names."""
    amounts = {"CPU": resources.cpu, "GPU": resources.gpu, "memory": float(resources.memory or 0)}
    return tuple(sorted((name, amount) for name, amount in amounts.items() if amount > 0))


def check_resources(resources: StageResources, totals: Mapping[str, float]) -> None:
    """Check that a worker of each stage fits the cluster.

    Args:
        resources: what each stage asks for.
        totals: the cluster's resources by Ray's names.

    Raises:
        SweepError: the first stage that asks for more than there is.
    """
    for stage in type(resources).model_fields:
        for name, amount in shape_of(getattr(resources, stage)):
            have = totals.get(name, 0.0)
            if amount > have:
                raise SweepError(
                    f"resources.{stage}.{FIELDS[name]}: asks for {amount:g}, but the cluster has "
                    f"{have:g}; lower it, or start Ray on more"
                )
