"""The position of an utterance in its conversation, and its speaker, as embeddings.

Shapes: B conversations, L positions, H hidden_dim.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["WithPositions", "sinusoidal_code"]


class WithPositions(nn.Module):
    """A model that adds a position code and a speaker embedding to its utterances.

    Speakers are 0 to `num_speakers - 1`; padding has a row of its own, `padding_speaker`. The
    embedding starts as N(0, `deviation`).
    """

    position_code: Tensor

    def __init__(self, *, hidden_dim: int, num_speakers: int, deviation: float) -> None:
        super().__init__()
        self.hidden_dim = hidden_dim
        self.speaker_embedding = nn.Embedding(num_speakers + 1, hidden_dim)
        self.padding_speaker = num_speakers
        nn.init.normal_(self.speaker_embedding.weight, std=deviation)
        self.register_buffer("position_code", sinusoidal_code(32, hidden_dim), persistent=False)

    def positions(self, mask: Tensor, speaker: Tensor) -> Tensor:
        """Position code plus speaker embedding, [B, L, H], from a mask [B, L], true where valid,
        and speakers [B, L], of any value where padded."""
        length = speaker.shape[1]
        if length > len(self.position_code):
            code = sinusoidal_code(2 * length, self.hidden_dim)
            self.position_code = code.to(self.position_code)
        speaker = speaker.masked_fill(~mask, self.padding_speaker)
        positions: Tensor = self.speaker_embedding(speaker) + self.position_code[:length]
        return positions


def sinusoidal_code(length: int, hidden_dim: int) -> Tensor:
    """Sinusoidal position code [length, hidden_dim] (Vaswani et al., 2017, section 3.5): sine in
    the even columns, cosine in the odd ones."""
    position = torch.arange(length, dtype=torch.float32)[:, None]
    exponent = torch.arange(0, hidden_dim, 2, dtype=torch.float32) / hidden_dim
    angle = position * torch.exp(-math.log(10_000.0) * exponent)
    return torch.stack([torch.sin(angle), torch.cos(angle)], dim=-1).flatten(1)
