"""What the encoders of clips have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal, Required, TypedDict, Unpack

from torch import Tensor, nn

from magtkd.encoders.adapt import adapt
from magtkd.encoders.hub import load_clip_encoder, read_settings

__all__ = ["ClipEncoder", "ClipOptions"]


class ClipOptions(TypedDict, total=False):
    """The options of a `ClipEncoder`."""

    pooling: Required[Literal["first", "mean"]]
    """The first hidden state of a clip, or the mean over all of them."""
    dropout: Required[float]
    """Dropout rate in the encoder."""
    gradient_checkpointing: bool
    """Compute activations again instead of keeping them."""
    lora: tuple[int, float] | None
    """Rank and alpha of the updates to train instead of the weights; None for none."""


class ClipEncoder(nn.Module, ABC):
    """A pretrained transformers model that gives each clip one hidden state of `width`.

    Args:
        encoder: a folder or a model id.
        options: see `ClipOptions`.

    Raises:
        ConfigError: an encoder that cannot be found or read, is of another kind, or has no such
            option.
    """

    STAGE: ClassVar[str]
    """The stage whose encoder it is."""
    HAS: ClassVar[str]
    """What only the configuration of such a model has."""
    KIND: ClassVar[str]
    """What it encodes, for messages."""
    WAY_OUT: ClassVar[str]
    """What else to give as `encoder`, for messages."""

    def __init__(self, encoder: str, **options: Unpack[ClipOptions]) -> None:
        super().__init__()
        self.place = f"{self.STAGE}.encoder"
        self.model: Any = load_clip_encoder(
            self.place, encoder, has=self.HAS, kind=self.KIND, way_out=self.WAY_OUT
        )
        self.settings = read_settings(encoder)
        adapt(
            self.STAGE,
            self.model,
            dropout=options["dropout"],
            gradient_checkpointing=options.get("gradient_checkpointing", False),
            lora=options.get("lora"),
        )
        self.width: int = self.model.config.hidden_size
        self.pooling = options["pooling"]

    @abstractmethod
    def collate(self, clips: list[Any]) -> tuple[Tensor, ...]:
        """The arguments of `forward` for a batch of clips."""
