"""The configuration: one section per stage, one seed, checked before anything runs.

Imports no torch, so that a trial, which only passes configurations on, stays small.
"""

from magtkd.config.checks import validate, with_values
from magtkd.config.files import dump_yaml, file_schema, load_config, override, read_config_file
from magtkd.config.names import get_value, given_names, names_of, section_of, sections_of
from magtkd.config.reasons import nearest, reason
from magtkd.config.sections import (
    DEV_METRICS,
    AudioConfig,
    AudioMediaConfig,
    Config,
    DataConfig,
    DistillConfig,
    EncoderSection,
    FusionConfig,
    LoraConfig,
    NodeType,
    Resources,
    Section,
    StageResources,
    StudentConfig,
    SyntheticConfig,
    TeacherConfig,
    TrainingSection,
    VideoConfig,
    VideoMediaConfig,
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
    "dump_yaml",
    "file_schema",
    "get_value",
    "given_names",
    "label_of",
    "load_config",
    "names_of",
    "nearest",
    "override",
    "read_config_file",
    "reason",
    "section_of",
    "sections_of",
    "validate",
    "with_values",
]
