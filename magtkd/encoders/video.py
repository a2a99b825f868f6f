"""A transformers video encoder: TimeSformer, VideoMAE.

Shapes: N clips of a batch, F frames, S height and width in pixels, L hidden states, W the encoder's
width.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from magtkd.encoders.adapt import adapt
from magtkd.encoders.hub import load_clip_encoder, read_settings
from magtkd.errors import ConfigError

__all__ = ["VideoEncoder"]

PLACE = "video.encoder"
WAY_OUT = "give the folder or the model id of TimeSformer or VideoMAE"
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet's, for models whose settings have none."""


class VideoEncoder(nn.Module):
    """Frames to one hidden state each clip.

    Args:
        encoder: a folder or a model id.
        shape: F, S, S and 3, of the clips.
        pooling: the `first` hidden state where that is a class token (TimeSformer), or the `mean`
            over all.
        dropout: dropout rate in the encoder.
        gradient_checkpointing: compute activations again instead of keeping them.
        lora: rank and alpha of the updates to train instead of the weights; None for none.

    Raises:
        ConfigError: an encoder that cannot be found or read, takes other clips, or has no such
            option or class token.
    """

    image_mean: Tensor
    image_std: Tensor

    def __init__(
        self,
        encoder: str,
        *,
        shape: tuple[int, ...],
        pooling: Literal["first", "mean"],
        dropout: float,
        gradient_checkpointing: bool = False,
        lora: tuple[int, float] | None = None,
    ) -> None:
        super().__init__()
        self.model: Any = load_clip_encoder(
            PLACE, encoder, has="num_frames", kind="video", way_out=WAY_OUT
        )
        self._check_shape(encoder, shape)
        if pooling == "first":
            self._check_class_token(encoder)
        adapt(
            "video",
            self.model,
            dropout=dropout,
            gradient_checkpointing=gradient_checkpointing,
            lora=lora,
        )
        self.width: int = self.model.config.hidden_size
        self._pooling = pooling
        settings = read_settings(encoder)
        for name, values in (("image_mean", _MEAN), ("image_std", _DEVIATION)):
            numbers = torch.tensor(settings.get(name, values)).reshape(3, 1, 1)
            self.register_buffer(name, numbers, persistent=False)

    def _check_shape(self, encoder: str, shape: tuple[int, ...]) -> None:
        config = self.model.config
        for name, given in (("num_frames", shape[0]), ("image_size", shape[1])):
            wanted = getattr(config, name)
            wanted = wanted[0] if isinstance(wanted, list | tuple) else wanted
            if wanted != given:
                raise ConfigError(
                    f"video_media.{name}: {given}, but {encoder!r} takes {wanted}; set it to that, "
                    "or to null"
                )

    def _check_class_token(self, encoder: str) -> None:
        names = [name.rpartition(".")[2] for name, _ in self.model.named_parameters()]
        if "cls_token" not in names:
            # Its first hidden state is one corner of the picture.
            raise ConfigError(
                f"video.pooling: 'first', but {encoder!r} is a {type(self.model).__name__}, which "
                "has no class token; set it to 'mean'"
            )

    def collate(self, clips: list[npt.NDArray[np.uint8]]) -> tuple[Tensor]:
        """Frames [N, F, S, S, 3] uint8."""
        return (torch.from_numpy(np.stack(clips)),)

    def forward(self, frames: Tensor) -> Tensor:
        """[N, W] of frames [N, F, S, S, 3] uint8."""
        values = frames.permute(0, 1, 4, 2, 3).float() / 255
        values = (values - self.image_mean) / self.image_std
        states: Tensor = self.model(pixel_values=values).last_hidden_state
        return states[:, 0] if self._pooling == "first" else states.mean(dim=1)
