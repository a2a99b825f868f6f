"""A transformers speech encoder: data2vec-audio, wav2vec2, HuBERT, WavLM.

Shapes: N clips of a batch, T samples of its longest clip, L hidden states of it, W the encoder's
width.
"""

from __future__ import annotations

from typing import Any, Unpack

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from magtkd.encoders.clip import ClipEncoder, ClipOptions
from magtkd.errors import ConfigError

__all__ = ["AudioEncoder"]

RATE = 16_000
LOUDEST = 32767


class AudioEncoder(ClipEncoder):
    """Waveforms to one hidden state each.

    Args:
        encoder: a folder or a model id.
        options: see `ClipOptions`.

    Raises:
        ConfigError: an encoder that cannot be found or read, is none of speech at 16 kHz, or has
            no such option.
    """

    STAGE = "audio"
    HAS = "conv_kernel"
    KIND = "speech"
    WAY_OUT = "give the folder or the model id of data2vec-audio, wav2vec2, HuBERT or WavLM"

    def __init__(self, encoder: str, **options: Unpack[ClipOptions]) -> None:
        super().__init__(encoder, **options)
        settings = self.settings
        if settings.get("sampling_rate", RATE) != RATE:
            raise ConfigError(
                f"{self.place}: {encoder!r} expects {settings['sampling_rate']} Hz, the clips have "
                f"{RATE} Hz; {self.WAY_OUT}"
            )
        self._normalises = bool(settings.get("do_normalize", True))
        # Models whose first layer normalises over time were trained without a mask.
        has_mask = getattr(self.model.config, "feat_extract_norm", "layer") == "layer"
        self._has_mask = bool(settings.get("return_attention_mask", has_mask))
        self._shortest = _num_samples(self.model.config, max(1, _mask_length(self.model.config)))

    def collate(self, clips: list[npt.NDArray[np.int16]]) -> tuple[Tensor, Tensor]:
        """Samples [N, T] int16, padded on the right, and lengths [N]."""
        lengths = [len(clip) for clip in clips]
        samples = np.zeros((len(clips), max(self._shortest, *lengths)), np.int16)
        for line, clip in enumerate(clips):
            samples[line, : len(clip)] = clip
        return torch.from_numpy(samples), torch.tensor(lengths)

    def forward(self, samples: Tensor, lengths: Tensor) -> Tensor:
        """[N, W] of samples [N, T] int16 that are padded on the right."""
        is_real = torch.arange(samples.shape[1], device=samples.device) < lengths[:, None]
        values = samples.float() / LOUDEST
        if self._normalises:
            values = _normalised(values, is_real)
        mask = is_real.long() if self._has_mask else None
        states: Tensor = self.model(values, attention_mask=mask).last_hidden_state
        if self.pooling == "first":
            return states[:, 0]
        num_states = _num_states(self.model.config, lengths).clamp(1, states.shape[1])
        counts = torch.arange(states.shape[1], device=states.device) < num_states[:, None]
        return (states * counts[..., None]).sum(dim=1) / num_states[:, None]


def _normalised(values: Tensor, is_real: Tensor) -> Tensor:
    """Each clip to mean 0 and variance 1, as the models' own feature extractor does; padding 0."""
    count = is_real.sum(dim=1, keepdim=True).clamp(min=1)
    mean = (values * is_real).sum(dim=1, keepdim=True) / count
    centred = (values - mean) * is_real
    variance = centred.square().sum(dim=1, keepdim=True) / count
    return centred / torch.sqrt(variance + 1e-7)


def _num_states(config: Any, lengths: Tensor) -> Tensor:
    """The number of hidden states that the convolutions give for so many samples."""
    for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
        lengths = torch.div(lengths - kernel, stride, rounding_mode="floor") + 1
    return lengths


def _num_samples(config: Any, num_states: int) -> int:
    """Samples that the convolutions need for so many hidden states."""
    layers = list(zip(config.conv_kernel, config.conv_stride, strict=True))
    for kernel, stride in reversed(layers):
        num_states = (num_states - 1) * stride + kernel
    return num_states


def _mask_length(config: Any) -> int:
    """The length of one SpecAugment mask, below which it refuses a batch."""
    masks = getattr(config, "apply_spec_augment", True) and config.mask_time_prob > 0
    return int(config.mask_time_length) if masks else 0
