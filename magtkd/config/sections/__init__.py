"""The sections of a configuration: one per stage, each field with its range and its meaning."""

from magtkd.config.sections.config import Config
from magtkd.config.sections.data import (
    AudioMediaConfig,
    DataConfig,
    SyntheticConfig,
    VideoMediaConfig,
)
from magtkd.config.sections.fusion import FusionConfig
from magtkd.config.sections.resources import NodeType, Resources, StageResources
from magtkd.config.sections.section import Section
from magtkd.config.sections.stages import (
    AudioConfig,
    DistillConfig,
    StudentConfig,
    TeacherConfig,
    VideoConfig,
)
from magtkd.config.sections.training import (
    DEV_METRICS,
    EncoderSection,
    LoraConfig,
    TrainingSection,
    label_of,
)

__all__ = [
    "DEV_METRICS",
    "AudioConfig",
    "AudioMediaConfig",
    "Config",
    "DataConfig",
    "DistillConfig",
    "EncoderSection",
    "FusionConfig",
    "LoraConfig",
    "NodeType",
    "Resources",
    "Section",
    "StageResources",
    "StudentConfig",
    "SyntheticConfig",
    "TeacherConfig",
    "TrainingSection",
    "VideoConfig",
    "VideoMediaConfig",
    "label_of",
]
