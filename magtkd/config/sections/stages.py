"""The sections of the teacher and of the students."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from magtkd.config import declared
from magtkd.config.sections.section import Section, Temperature, Weight
from magtkd.config.sections.training import EncoderSection
from magtkd.reading import Choice

__all__ = ["AudioConfig", "DistillConfig", "StudentConfig", "TeacherConfig", "VideoConfig"]


class TeacherConfig(EncoderSection):
    """The text teacher."""

    CHOICES: ClassVar[tuple[Choice, ...]] = (declared.SCHEDULE, declared.TEXT_ENCODER)
    FROZEN = "prompt"

    encoder: Annotated[str, Field(min_length=1)] = "features"
    """`features` for the table's text features; `tiny` for a small randomly initialised
    transformer; `minilm` for the one in `magtkd[offline]`; or a transformers text encoder, by
    model id or folder."""
    prompt_length: Annotated[int, Field(ge=0, le=2**16)] = 0
    """Trained prompt vectors before the mask token."""
    template: Literal["published", "none"] = "published"
    """What follows the turns: `Now <speaker> feels <mask>`, whose mask is read; or no prompt, and
    the separator that closes the utterance is read."""
    train: Literal["full", "prompt"] = "full"
    """Train everything, or only the prompt and the layers on top of the encoder."""
    context: Annotated[int, Field(ge=0, lt=2**31)] | None = 8
    """Turns before the utterance that the prompt shows; null shows all that fit."""
    max_length: Annotated[int, Field(ge=16, le=2**20)] = 256
    """Tokens an input has at most, prompt vectors included; it is cut on the left."""

    @model_validator(mode="after")
    def _prompt_needs_transformer(self) -> Self:
        if self.encoder == "features" and self.prompt_length > 0:
            raise ValueError(
                f"prompt_length is {self.prompt_length}, but encoder 'features' has no prompt; "
                "set encoder to 'tiny' or a transformers model, or prompt_length to 0"
            )
        if self.encoder == "features" and self.train == "prompt":
            raise ValueError(
                "train is 'prompt', but encoder 'features' has no prompt; set train to 'full'"
            )
        if self.template == "none" and self.prompt_length > 0:
            raise ValueError(
                f"prompt_length is {self.prompt_length}, but template 'none' has no prompt; set "
                "template to 'published', or prompt_length to 0"
            )
        if self.train == "prompt" and (self.lora is not None or self.gradient_checkpointing):
            raise ValueError(
                "train is 'prompt', which leaves the encoder alone; leave lora and "
                "gradient_checkpointing out, or set train to 'full'"
            )
        if self.prompt_length > self.max_length // 2:
            raise ValueError(
                f"prompt_length is {self.prompt_length}; keep it at most half of max_length, "
                f"{self.max_length}"
            )
        return self


class DistillConfig(Section):
    """How a student learns from the teacher: `CE + logit_weight * logit + feature_weight * feature`
    (arXiv 2506.18716; the logit loss is DIST's)."""

    CONDITIONS = declared.DISTILL

    logit_weight: Weight = 0.1
    """Weight of the logit loss."""
    temperature: Temperature = 2.0
    """Temperature of the logit loss."""
    inter_weight: Weight = 1.0
    """Weight of the correlation over the classes of each utterance."""
    intra_weight: Weight = 1.0
    """Weight of the correlation over the utterances of each class."""
    feature_weight: Weight = 1.0
    """Weight of the feature loss."""
    feature_temperature: Temperature = 1.0
    """Temperature of the feature loss."""


class StudentConfig(EncoderSection):
    """A student of one modality."""

    CHOICES: ClassVar[tuple[Choice, ...]] = (declared.SCHEDULE, declared.CLIP_ENCODER)
    CONDITIONS = declared.STUDENT
    FROZEN = "head"

    train: Literal["full", "head"] = "full"
    """Train everything, or only the layers on top of the encoder."""
    pooling: Literal["first", "mean"] = "first"
    """The encoder's first hidden state, or the mean over all of the clip's (VideoMAE, which has no
    class token, takes the mean only)."""
    distill: DistillConfig | None = DistillConfig()
    """Distillation from the teacher; null trains on the labels alone."""

    @model_validator(mode="after")
    def _head_needs_an_encoder(self) -> Self:
        if self.encoder == "features" and self.train == "head":
            raise ValueError(
                "train is 'head', but encoder 'features' is nothing else; set train to 'full', or "
                "encoder to a transformers model"
            )
        if self.train == "head" and (self.lora is not None or self.gradient_checkpointing):
            raise ValueError(
                "train is 'head', which leaves the encoder alone; leave lora and "
                "gradient_checkpointing out, or set train to 'full'"
            )
        return self


class AudioConfig(StudentConfig):
    """The audio student."""

    CLIP_LENGTH = "audio_media.max_samples"

    encoder: Annotated[str, Field(min_length=1)] = "features"
    """`features` for the table's audio features; or a transformers speech encoder (data2vec-audio,
    wav2vec2, HuBERT, WavLM) by model id or folder, on the clips' waveforms."""


class VideoConfig(StudentConfig):
    """The video student."""

    encoder: Annotated[str, Field(min_length=1)] = "features"
    """`features` for the table's video features; or a transformers video encoder (TimeSformer,
    VideoMAE) by model id or folder, on the clips' frames."""
