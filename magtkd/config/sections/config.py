"""The whole configuration."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from magtkd.config.sections.data import AudioMediaConfig, DataConfig, VideoMediaConfig
from magtkd.config.sections.fusion import FusionConfig
from magtkd.config.sections.resources import StageResources
from magtkd.config.sections.section import Section
from magtkd.config.sections.stages import AudioConfig, TeacherConfig, VideoConfig

__all__ = ["Config", "StageSeeds"]

Seed = Annotated[int, Field(ge=0, lt=2**31)]


class StageSeeds(Section):
    """Seeds of single stages, such as a teacher that stays while fusion is repeated with others;
    null is the configuration's `seed`."""

    data: Seed | None = None
    """Which conversations become dev, where the table has no dev split."""
    teacher: Seed | None = None
    """Of the teacher."""
    audio: Seed | None = None
    """Of the audio student."""
    video: Seed | None = None
    """Of the video student."""
    fusion: Seed | None = None
    """Of fusion."""


class Config(Section):
    """A whole configuration: what `magtkd train` runs."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")] = "magtkd"
    """Name of the run: letters, digits, dot, underscore and hyphen."""
    seed: Seed = 0
    """Seed of everything random."""
    seeds: StageSeeds = StageSeeds()
    data: DataConfig = DataConfig()
    teacher: TeacherConfig = TeacherConfig()
    audio_media: AudioMediaConfig = AudioMediaConfig()
    video_media: VideoMediaConfig = VideoMediaConfig()
    audio: AudioConfig = AudioConfig()
    video: VideoConfig = VideoConfig()
    fusion: FusionConfig = FusionConfig()
    resources: StageResources = StageResources()
    """Not part of any stage's key: how much a stage may use, not what it computes."""

    def seed_of(self, stage: str) -> int:
        """The seed of one of the stages that have one."""
        own: int | None = getattr(self.seeds, stage)
        return self.seed if own is None else own
