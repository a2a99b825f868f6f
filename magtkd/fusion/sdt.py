"""The transformer with self-distillation (SDT, Ma et al., 2023).

Every modality attends to itself and to every other; a gate over the modalities, element by element,
fuses their states, and the fused head teaches those of the modalities.

Shapes: B conversations, L positions, H hidden_dim, C classes, M modalities, F a modality's width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from magtkd.fusion.cross_modal import (
    SDT_STYLE,
    CrossModalEncoders,
    GateKind,
    targets_and_sources,
)
from magtkd.fusion.encoder import mask_to_bias
from magtkd.fusion.modalities import FusionOutput, order_modalities, require_inputs
from magtkd.fusion.positions import WithPositions
from magtkd.fusion.published.places import copy_published
from magtkd.fusion.published.sdt import correspondence, is_unused, published_sizes
from magtkd.sizes import check_attention_sizes

__all__ = ["SDT"]

SPEAKER_DEVIATION = 1.0


class SDT(WithPositions):
    """Fuses utterances of up to three modalities, of any widths.

    `widths` has each modality's, in any order. `num_heads` divides `hidden_dim`, which is even;
    `depth` is the number of layers of each encoder (published: 1). `gate` is `learned` (published
    for IEMOCAP) or `identity` (for MELD); with `none`, streams are left as they are and modalities
    are averaged. Speakers are 0 to `num_speakers - 1`; padding has a row of its own. Raises
    ValueError otherwise.
    """

    def __init__(
        self,
        *,
        widths: Mapping[str, int],
        hidden_dim: int,
        num_heads: int,
        depth: int,
        num_classes: int,
        num_speakers: int,
        dropout: float,
        gate: GateKind = "learned",
    ) -> None:
        check_attention_sizes(hidden_dim, num_heads)
        super().__init__(
            hidden_dim=hidden_dim, num_speakers=num_speakers, deviation=SPEAKER_DEVIATION
        )
        self.depth, self.gate_kind = depth, gate
        self.modalities = order_modalities(tuple(widths))
        self.widths = {modality: widths[modality] for modality in self.modalities}
        num_modalities = len(self.modalities)
        self.inputs = nn.ModuleDict(
            {
                modality: nn.Linear(width, hidden_dim, bias=False)
                for modality, width in self.widths.items()
            }
        )
        # The attribute's name is in the names of all weights that were saved.
        self.readers = CrossModalEncoders(
            num_targets=num_modalities,
            num_predicting=num_modalities,
            shared=False,
            num_modalities=num_modalities,
            hidden_dim=hidden_dim,
            num_heads=num_heads,
            depth=depth,
            num_classes=num_classes,
            dropout=dropout,
            gate=gate,
            style=SDT_STYLE,
        )
        self.fuse = None if gate == "none" else nn.Linear(hidden_dim, hidden_dim, bias=False)
        self.head = nn.Linear(hidden_dim, num_classes)

    def forward(
        self,
        text: Tensor | None,
        audio: Tensor | None,
        video: Tensor | None,
        mask: Tensor,
        speaker: Tensor,
    ) -> FusionOutput:
        """Logits and hidden states of each modality and of the fused head.

        Modalities are [B, L, F], or None where built without; `mask` [B, L] is true (or 1) for a
        real utterance; `speaker` [B, L] are integers, of any value where padded. Raises ValueError
        when the modalities are not those it was built with.
        """
        given = require_inputs(self.widths, None, text, audio, video)
        mask = mask.bool()
        positions = self.positions(mask, speaker)
        mapped = {modality: self.inputs[modality](features) for modality, features in given.items()}
        targets, sources = targets_and_sources(mapped, tuple(mapped), positions)
        hidden, logits = self.readers(targets, sources, mask_to_bias(mask, positions.dtype))
        fused = self._fuse(hidden)
        return FusionOutput.from_modalities(
            dict(zip(given, logits, strict=True)),
            dict(zip(given, hidden, strict=True)),
            fused_logits=self.head(fused),
            fused_hidden=fused,
        )

    def _fuse(self, hidden: Tensor) -> Tensor:
        """[B, L, H] from [M, B, L, H]: a weight for each modality and element."""
        if self.fuse is None:
            return hidden.mean(dim=0)
        return (F.softmax(self.fuse(hidden), dim=0) * hidden).sum(dim=0)

    @classmethod
    def from_published(
        cls, state: Mapping[str, Any], *, num_heads: int | None = None, dropout: float = 0.5
    ) -> SDT:
        """A model with the weights of the published code, given under their published names.

        `state` holds tensors or arrays; all sizes but `num_heads` are read off it, and whether the
        gates are the identity. None takes the published 8 heads at the published width of 1024,
        and 4 at any other. Raises ValueError that names what is missing, unknown, or of another
        shape.
        """
        sizes = published_sizes(state)
        if num_heads is None:
            num_heads = 8 if sizes["hidden_dim"] == 1024 else 4
        model = cls(**sizes, num_heads=num_heads, dropout=dropout)
        places = correspondence(sizes["depth"], sizes["hidden_dim"], gate=sizes["gate"])
        copy_published(dict(model.named_parameters()), state, places, is_unused, "SDT")
        return model
