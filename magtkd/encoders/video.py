"""A transformers video encoder: TimeSformer, VideoMAE.

Shapes: N clips of a batch, F frames, S height and width in pixels, L hidden states, W the encoder's
width.
"""

from __future__ import annotations

from typing import Unpack

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from magtkd.encoders.clip import ClipEncoder, ClipOptions
from magtkd.errors import ConfigError

__all__ = ["VideoEncoder"]

_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet's, for models whose settings have none."""


class VideoEncoder(ClipEncoder):
    """Frames to one hidden state each clip.

    Args:
        encoder: a folder or a model id.
        shape: F, S, S and 3, of the clips.
        options: see `ClipOptions`; the first hidden state must be a class token (TimeSformer).

    Raises:
        ConfigError: an encoder that cannot be found or read, takes other clips, or has no such
            option or class token.
    """

    STAGE = "video"
    HAS = "num_frames"
    KIND = "video"
    WAY_OUT = "give the folder or the model id of TimeSformer or VideoMAE"

    image_mean: Tensor
    image_std: Tensor

    def __init__(
        self, encoder: str, *, shape: tuple[int, ...], **options: Unpack[ClipOptions]
    ) -> None:
        super().__init__(encoder, **options)
        self._check_shape(encoder, shape)
        if self.pooling == "first":
            self._check_class_token(encoder)
        for name, values in (("image_mean", _MEAN), ("image_std", _DEVIATION)):
            numbers = torch.tensor(self.settings.get(name, values)).reshape(3, 1, 1)
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
        return states[:, 0] if self.pooling == "first" else states.mean(dim=1)
