"""What the sections of trained stages share."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from magtkd.config import declared
from magtkd.config.reasons import nearest
from magtkd.config.sections.section import Positive, Rate, Section, Weight, Width
from magtkd.errors import shorten
from magtkd.reading import Choice
from magtkd.schedules import SCHEDULES

__all__ = ["DEV_METRICS", "EncoderSection", "LoraConfig", "TrainingSection", "label_of"]

if TYPE_CHECKING:
    ScheduleName = str
else:
    ScheduleName = Literal[tuple(SCHEDULES)]


DEV_METRICS = ("accuracy", "loss", "macro_f1", "weighted_f1")
"""What every trained stage reports of dev, beside `f1/<label>`."""

SELECT_PATTERN = rf"^({'|'.join(DEV_METRICS)}|f1/.+)$"


def label_of(metric: str) -> str | None:
    """The label whose F1 a metric is, as `select` names it, if it is one's."""
    return metric.removeprefix("f1/") if metric.startswith("f1/") else None


class TrainingSection(Section):
    """What every trained stage has."""

    CHOICES: ClassVar[tuple[Choice, ...]] = (declared.SCHEDULE,)

    epochs: Positive = 10
    """Passes over train."""
    batch_size: Positive = 16
    """Conversations a batch."""
    accumulation: Positive = 1
    """Batches whose gradients are averaged, by their utterances, before each step."""
    optimizer: Literal["adamw", "adam"] = "adamw"
    """AdamW; or Adam, whose weight decay is an L2 term of the gradient (SDT's)."""
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-3
    """The optimizer's peak learning rate."""
    weight_decay: Weight = 1e-4
    """Weight decay: decoupled with AdamW, of the gradient with Adam."""
    hidden_dim: Width = 64
    """Width of the stage's hidden features."""
    dropout: Rate = 0.1
    """Dropout rate."""
    gradient_norm: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 10.0
    """Gradients are clipped to this norm."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Arithmetic on CUDA (autocast); a CPU always computes in float32."""
    schedule: ScheduleName = "constant"
    """Learning rate over the steps: constant; linear warm-up, then linear decay to 0; or the
    published code's warm-up, which counts conversations while stepping per batch."""
    warmup: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of all steps that are warm-up."""
    patience: Positive | None = None
    """Stop after this many epochs without a better dev metric; null never stops."""
    select: Annotated[str, Field(json_schema_extra={"pattern": SELECT_PATTERN})] = "weighted_f1"
    """The dev metric that chooses the epoch whose weights are kept: `weighted_f1`, `macro_f1`,
    `accuracy`, `loss`, or `f1/<label>`. In a sweep the objective chooses that of fusion."""
    class_weights: Literal["none", "balanced"] = "none"
    """Weights of the classes in the cross-entropy: none, or inversely proportional to their
    frequency in train."""

    @field_validator("select")
    @classmethod
    def _known_metric(cls, select: str) -> str:
        if re.match(SELECT_PATTERN, select):
            return select
        known = (*DEV_METRICS, "f1/<label>")
        hint = nearest(select, known)
        raise ValueError(f"{shorten(select)!r}: no such metric{hint}; known are {', '.join(known)}")

    def at_epoch(self, epoch: int) -> Self:
        """The section as it is in this epoch (from 1)."""
        return self


class LoraConfig(Section):
    """Low-rank adaptation of an encoder's attention (Hu et al., ICLR 2022), by `peft`."""

    rank: Width = 8
    """Rank of each update."""
    alpha: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 16.0
    """The update is scaled by `alpha / rank`."""


class EncoderSection(TrainingSection):
    """What a stage has that may train a transformers encoder."""

    FROZEN: ClassVar[str]
    """The value of `train` that leaves the encoder as it is."""
    CLIP_LENGTH: ClassVar[str | None] = None
    """The value that bounds the length of a clip, where one does."""

    batch_size: Positive = 32
    """Utterances a batch."""
    encoder: Annotated[str, Field(min_length=1)] = "features"
    gradient_checkpointing: bool = False
    """Compute the encoder's activations again instead of keeping them: less memory, more time."""
    lora: LoraConfig | None = None
    """Train low-rank updates of the encoder's attention instead of its weights (not WavLM's)."""

    @model_validator(mode="after")
    def _options_need_an_encoder(self) -> Self:
        for name in ("lora", "gradient_checkpointing"):
            if self.encoder == "features" and getattr(self, name):
                raise ValueError(
                    f"{name} is set, but encoder 'features' has nothing for it; set encoder to a "
                    f"transformers model, or leave {name} out"
                )
        return self
