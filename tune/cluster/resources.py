"""What the stages of a sweep ask of its cluster: by default, and whether a node has it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import ray

from magtkd.config import Resources, StageResources
from magtkd.errors import SweepError, first_line, shorten
from tune.cluster.nodes import Node
from tune.cluster.shape import ACCELERATOR, amount_text, shape_of

__all__ = ["check_resources", "with_gpu_shares"]

FIELDS = {"CPU": "cpu", "GPU": "gpu", "memory": "memory"}
SMALL_SHARE = 0.25
"""Of a GPU, for a stage on ready-made features: fusion or a student of a few layers."""
_Anything: Any = ray.remote(type("_Anything", (), {}))
"""An actor that is never started."""


def with_gpu_shares(
    resources: StageResources, with_encoder: Collection[str], nodes: Sequence[Node]
) -> tuple[StageResources, str]:
    """The resources with a GPU's share for each stage that leaves it open, where there are GPUs: a
    whole one to train a transformers encoder, a quarter on ready-made features, none to decode
    clips.

    Args:
        resources: as given.
        with_encoder: the stages that train a transformers encoder.
        nodes: those that are there or can be added.

    Returns:
        the resources, and one line that says what was chosen; empty where nothing was.
    """
    has_gpus = any(node.totals.get("GPU", 0) > 0 for node in nodes)
    chosen: dict[str, Resources] = {}
    for stage in resources.STAGES:
        one: Resources = getattr(resources, stage)
        if one.gpu is None:
            share = _share(stage, stage in with_encoder) if has_gpus else 0.0
            chosen[stage] = one.model_copy(update={"gpu": share})
    shown = ", ".join(f"{stage} {one.gpu:g}" for stage, one in chosen.items() if one.gpu)
    line = (
        f"GPUs by default: {shown}; resources.STAGE.gpu sets them, and 0 hides them"
        if shown
        else ""
    )
    return resources.model_copy(update=chosen), line


def _share(stage: str, has_encoder: bool) -> float:
    if stage.endswith("_media"):
        return 0.0
    return 1.0 if has_encoder else SMALL_SHARE


def check_resources(
    resources: StageResources, nodes: Sequence[Node], types: Sequence[Node] = ()
) -> None:
    """Check that a worker of each stage fits on a node.

    Args:
        resources: what each stage asks for.
        nodes: those that are alive.
        types: those that the autoscaler can add.

    Raises:
        SweepError: the first stage that asks for what Ray gives no one, or whose worker fits none
            of them.
    """
    every = [*nodes, *types]
    for stage in resources.STAGES:
        shape = shape_of(getattr(resources, stage))
        try:
            _Anything.options(**shape.options())
        except ValueError as error:  # Ray's own rules, which its processes find out late
            message = f"asks for {shorten(str(shape))}, which Ray refuses: {first_line(error)}"
            raise SweepError(f"resources.{stage}: {message}; change it") from None
        if not any(node.fits(shape) for node in every):
            raise SweepError(_misfit(stage, resources, every))


def _misfit(stage: str, resources: StageResources, nodes: Sequence[Node]) -> str:
    """What a stage lacks on the node that has the most of it."""
    shape, place = shape_of(getattr(resources, stage)), f"resources.{stage}"
    way_out = (
        "lower it, start Ray on a larger node, or name in resources.node_types what the autoscaler "
        "can add"
    )
    if not nodes:
        return f"{place}: asks for {shape}, but the cluster has no node; {way_out}"
    best = min(nodes, key=lambda node: len(shape.lacks(node.totals)))
    if not (lacking := sorted(shape.lacks(best.totals))):
        return f"{place}.label_selector: no node has the labels of {shape}; start one with them"
    name = lacking[0]
    largest = max(nodes, key=lambda node: (node.totals.get(name, 0.0), _size(node)))
    have = largest.totals.get(name, 0.0)
    is_alone = shape.amount(name) > have
    field = f".{_field(name)}" if is_alone else ""  # else each is somewhere, but not all of them
    asked = amount_text(name, shape.amount(name)) if is_alone else f"{shape} on one node"
    return (
        f"{place}{field}: asks for {asked}, but the cluster's largest node, {largest.name}, has "
        f"{largest.has}; {way_out}"
    )


def _field(name: str) -> str:
    return (
        "accelerator_type" if name.startswith(ACCELERATOR) else FIELDS.get(name, f"custom.{name}")
    )


def _size(node: Node) -> tuple[float, float]:
    return node.totals.get("GPU", 0.0), node.totals.get("CPU", 0.0)
