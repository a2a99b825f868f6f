"""The sections of resources."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import ByteSize, Field

from magtkd.config.sections.section import Section

__all__ = ["Resources", "StageResources"]


class Resources(Section):
    """What one stage's worker asks of the cluster."""

    cpu: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1
    """CPUs; the stage computes with as many threads, rounded up."""
    gpu: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0
    """GPUs, or a share of one."""
    memory: ByteSize | None = None
    """Memory, in bytes or as `4GB`; null asks for none in particular."""

    @property
    def num_threads(self) -> int:
        """Threads that the stage computes with."""
        return max(1, math.ceil(self.cpu))


class StageResources(Section):
    """What each trained stage asks for, and those that decode media, which need no GPU."""

    teacher: Resources = Resources()
    audio_media: Resources = Resources()
    video_media: Resources = Resources()
    audio: Resources = Resources()
    video: Resources = Resources()
    fusion: Resources = Resources()
