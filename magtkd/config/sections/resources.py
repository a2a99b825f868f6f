"""The sections of resources."""

from __future__ import annotations

import math
import re
from typing import Annotated, ClassVar

from pydantic import ByteSize, Field, field_validator

from magtkd.config.sections.section import Positive, Section
from magtkd.errors import shorten

__all__ = ["NodeType", "Resources", "StageResources"]

Amount = Annotated[float, Field(ge=0, le=100_000, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=2**53, allow_inf_nan=False)]
Size = Annotated[ByteSize, Field(ge=0, lt=2**63)]

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
_SELECTOR = re.compile(rf"!?(?:{_LABEL}|in\({_LABEL}(?:, ?{_LABEL})*\))")
_OWN = ("CPU", "GPU", "memory", "object_store_memory")
"""Ray's names for what is not custom."""


class Resources(Section):
    """What one stage's worker asks of the cluster."""

    cpu: Annotated[float, Field(gt=0, le=100_000, allow_inf_nan=False)] = 1
    """CPUs; the stage computes with as many threads, rounded up."""
    gpu: Amount | None = None
    """GPUs, or a share of one; 0 hides them from the stage, null asks for a share where there are
    GPUs."""
    memory: Size | None = None
    """Memory, in bytes or as `4GiB`; null asks for none in particular."""
    accelerator_type: str | None = None
    """The kind of accelerator by Ray's name, such as `H100`; null for any."""
    label_selector: dict[str, str] = Field(default_factory=dict)
    """Labels that Ray's node must have: `{region: us-east-1}`, `{market: "!spot"}` or
    `{zone: "in(a, b)"}`."""
    custom: dict[str, Share] = Field(default_factory=dict)
    """Custom resources by the names under which the nodes were started with them."""

    @field_validator("gpu")
    @classmethod
    def _whole_above_one(cls, gpu: float | None) -> float | None:
        if gpu is not None and gpu > 1 and gpu != int(gpu):
            raise ValueError(f"{gpu:g}: Ray gives shares of one GPU, or whole ones; round it")
        return gpu

    @field_validator("label_selector")
    @classmethod
    def _selectors(cls, labels: dict[str, str]) -> dict[str, str]:
        for name, wanted in labels.items():
            if not _SELECTOR.fullmatch(wanted):
                raise ValueError(
                    f"{shorten(name)}: {shorten(wanted)!r} is no selector of Ray's; write a "
                    "value, '!value' or "
                    "'in(one, other)'"
                )
        return labels

    @field_validator("custom")
    @classmethod
    def _not_ray_s_own(cls, custom: dict[str, float]) -> dict[str, float]:
        for name in custom:
            if not name.strip() or name in _OWN or name.startswith("accelerator_type:"):
                raise ValueError(
                    f"{shorten(name)!r} is no custom resource; CPUs, GPUs, memory and the kind of "
                    "accelerator have fields of their own"
                )
        return custom

    @property
    def num_threads(self) -> int:
        """Threads that the stage computes with."""
        return max(1, math.ceil(self.cpu))


class NodeType(Section):
    """A node that the cluster's autoscaler can add."""

    cpu: Amount = 0
    """Its CPUs."""
    gpu: Amount = 0
    """Its GPUs."""
    memory: Size | None = None
    """Its memory for Ray, in bytes or as `64GiB`; null for any."""
    accelerator_type: str | None = None
    """The kind of its accelerator by Ray's name, such as `H100`."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Its labels."""
    custom: dict[str, Share] = Field(default_factory=dict)
    """Its custom resources."""


class StageResources(Section):
    """What each trained stage asks for, and those that decode media, which need no GPU; and how far
    workers of the sweep may spread."""

    STAGES: ClassVar = ("teacher", "audio_media", "video_media", "audio", "video", "fusion")
    """The fields that are resources of a stage."""

    teacher: Resources = Resources()
    audio_media: Resources = Resources()
    video_media: Resources = Resources()
    audio: Resources = Resources()
    video: Resources = Resources()
    fusion: Resources = Resources()
    max_workers: Positive | None = None
    """The most workers at a time, of all stages; null for as many as there is work for."""
    idle_seconds: Annotated[float, Field(ge=0, lt=2**31, allow_inf_nan=False)] = 10.0
    """How long a worker with nothing to do is kept; nodes without any can be taken away."""
    node_types: dict[str, NodeType] = Field(default_factory=dict)
    """What the cluster's autoscaler can add, by name; where the driver runs on the head of
    `ray up`, Ray's own file says it."""
