"""The baseline: concatenate the modalities of each utterance, then two layers.

Shapes: B conversations, L positions, H hidden_dim, C classes, M modalities.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from magtkd.fusion.dropout import Dropout
from magtkd.fusion.modalities import FusionOutput, order_modalities, require_inputs

__all__ = ["Concat"]


class Concat(nn.Module):
    """Linear (M * H to H), GELU, dropout, linear (H to C), for each utterance by itself.

    Raises ValueError when `modalities` is empty or has an unknown one.
    """

    def __init__(
        self,
        *,
        hidden_dim: int,
        num_classes: int,
        dropout: float,
        modalities: Sequence[str] = ("text", "audio", "video"),
    ) -> None:
        super().__init__()
        self.hidden_dim = hidden_dim
        self.modalities = order_modalities(modalities)
        self.inner = nn.Linear(len(self.modalities) * hidden_dim, hidden_dim)
        self.dropout = Dropout(dropout)
        self.head = nn.Linear(hidden_dim, num_classes)

    def forward(
        self,
        text: Tensor | None,
        audio: Tensor | None,
        video: Tensor | None,
        mask: Tensor,
        speaker: Tensor,
    ) -> FusionOutput:
        """The anchor's logits and hidden state, and None for the other modalities.

        Modalities are [B, L, H], or None where built without; `mask` and `speaker` are not read.
        Raises ValueError when the modalities are not those it was built with.
        """
        given = require_inputs(self.modalities, self.hidden_dim, text, audio, video)
        hidden = F.gelu(self.inner(torch.cat(list(given.values()), dim=-1)))
        anchor, *_ = given
        logits = self.head(self.dropout(hidden))
        return FusionOutput.from_modalities({anchor: logits}, {anchor: hidden})
