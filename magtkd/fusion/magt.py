"""The Multi-modal Anchor Gated Transformer (MAGT, arXiv 2506.18716).

The audio and the video utterances first attend to themselves and to every other modality; the
anchor (text, or the first modality there is) then attends to itself and to the refined others.

Shapes: B conversations, L positions, H hidden_dim, C classes, M modalities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from magtkd.fusion.cross_modal import (
    MAGT_STYLE,
    CrossModalEncoders,
    GateKind,
    targets_and_sources,
)
from magtkd.fusion.encoder import mask_to_bias
from magtkd.fusion.modalities import FusionOutput, order_modalities, require_inputs
from magtkd.fusion.positions import WithPositions
from magtkd.fusion.published.magt import correspondence, is_unused, published_sizes
from magtkd.fusion.published.places import copy_published
from magtkd.sizes import check_attention_sizes

__all__ = ["MAGT"]

SPEAKER_DEVIATION = 0.1
PUBLISHED_PADDING_SPEAKER = 2


class MAGT(WithPositions):
    """Fuses utterances of up to three modalities, each already `hidden_dim` wide.

    `num_heads` divides `hidden_dim`, which is even; `depth` is the number of layers of each
    encoder. Speakers are 0 to `num_speakers - 1`; padding has a row of its own. There are
    no streams of a modality outside `modalities`. `gate` is what follows each encoder, see
    `make_gate`. Without `anchor`, all modalities, text too, attend to each other as they come, and
    a linear map of their states side by side has the head that predicts. Raises ValueError
    otherwise.
    """

    def __init__(
        self,
        *,
        hidden_dim: int,
        num_heads: int,
        depth: int,
        num_classes: int,
        num_speakers: int,
        dropout: float,
        modalities: Sequence[str] = ("text", "audio", "video"),
        gate: GateKind = "learned",
        anchor: bool = True,
    ) -> None:
        check_attention_sizes(hidden_dim, num_heads)
        super().__init__(
            hidden_dim=hidden_dim, num_speakers=num_speakers, deviation=SPEAKER_DEVIATION
        )
        self.depth, self.gate_kind = depth, gate
        self.modalities = order_modalities(modalities)
        num_modalities = len(self.modalities)
        sizes: dict[str, Any] = {
            "num_modalities": num_modalities,
            "hidden_dim": hidden_dim,
            "num_heads": num_heads,
            "depth": depth,
            "num_classes": num_classes,
            "dropout": dropout,
            "gate": gate,
            "style": MAGT_STYLE,
        }
        targets = self.modalities[1:] if anchor else self.modalities
        # Text's head would have no loss: only the audio and the video head have a weight.
        self._predicting = tuple(target for target in targets if target != "text")
        self.others = (
            CrossModalEncoders(
                num_targets=len(targets),
                num_predicting=len(self._predicting),
                shared=False,
                **sizes,
            )
            if targets
            else None
        )
        self.anchor = (
            CrossModalEncoders(num_targets=1, num_predicting=1, shared=True, **sizes)
            if anchor
            else None
        )
        if not anchor:
            self.reduce = nn.Linear(num_modalities * hidden_dim, hidden_dim)
            self.head = nn.Linear(hidden_dim, num_classes)

    def forward(
        self,
        text: Tensor | None,
        audio: Tensor | None,
        video: Tensor | None,
        mask: Tensor,
        speaker: Tensor,
    ) -> FusionOutput:
        """Logits and hidden states of each modality; without an anchor, of the fused head too, and
        then no logits of text.

        Modalities are [B, L, H], or None where built without; `mask` [B, L] is true (or 1) for a
        real utterance; `speaker` [B, L] are integers, of any value where padded. Raises ValueError
        when the modalities are not those it was built with.
        """
        given = require_inputs(self.modalities, self.hidden_dim, text, audio, video)
        mask = mask.bool()
        positions = self.positions(mask, speaker)
        bias = mask_to_bias(mask, positions.dtype)
        hidden, logits = self._encode_others(given, positions, bias)
        if self.anchor is not None:
            anchor, *others = given
            states = (
                torch.stack([hidden[other] for other in others]) + positions
                if others
                else positions.new_empty(0, *positions.shape)
            )
            own_hidden, own_logits = self.anchor(given[anchor][None] + positions, states, bias)
            return FusionOutput.from_modalities(
                {anchor: own_logits[0]} | logits, {anchor: own_hidden[0]} | hidden
            )
        fused = self.reduce(torch.cat(list(hidden.values()), dim=-1))
        return FusionOutput.from_modalities(
            logits, hidden, fused_logits=self.head(fused), fused_hidden=fused
        )

    def _encode_others(
        self, given: Mapping[str, Tensor], positions: Tensor, mask_bias: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Hidden states [B, L, H] and logits [B, L, C] of the modalities that are no anchor."""
        if self.others is None:
            return {}, {}
        targets = self.modalities[1:] if self.anchor is not None else self.modalities
        hidden, logits = self.others(*targets_and_sources(given, targets, positions), mask_bias)
        predicted = {} if logits is None else dict(zip(self._predicting, logits, strict=True))
        return dict(zip(targets, hidden, strict=True)), predicted

    @classmethod
    def from_published(
        cls, state: Mapping[str, Any], *, num_heads: int | None = None, dropout: float = 0.5
    ) -> MAGT:
        """A model with the weights of the published code, given under their published names.

        `state` holds tensors or arrays; all sizes but `num_heads` are read off it. That is not in
        the weights: None takes the published 8 at the published width of 768, and 4 at any other.
        `num_speakers` is one less than the rows of the speaker embedding, and padding shares row 2,
        as published. The modules that the published code never uses are ignored. Raises ValueError
        that names what is missing, unknown, or of another shape.
        """
        sizes = published_sizes(state)
        if num_heads is None:
            num_heads = 8 if sizes["hidden_dim"] == 768 else 4
        model = cls(**sizes, num_heads=num_heads, dropout=dropout)
        places = correspondence(sizes["depth"], sizes["hidden_dim"])
        copy_published(dict(model.named_parameters()), state, places, is_unused, "MAGT")
        model.padding_speaker = min(PUBLISHED_PADDING_SPEAKER, sizes["num_speakers"])
        return model

    def to_published(self) -> dict[str, Tensor]:
        """The weights under their published names, without the modules that are never used; the
        inverse of `from_published`.

        The tensors are views of the parameters. Raises ValueError when a modality, the anchor
        or a gate's weights are absent.
        """
        if len(self.modalities) < 3:
            raise ValueError(
                f"built with {', '.join(self.modalities)}; the published model has all of "
                "text, audio, video"
            )
        if self.anchor is None or self.gate_kind != "learned":
            raise ValueError(
                f"built with gate {self.gate_kind!r} and anchor {self.anchor is not None}; the "
                "published model has an anchor and learned gates"
            )
        own = {name: parameter.detach() for name, parameter in self.named_parameters()}
        places = correspondence(self.depth, self.hidden_dim)
        return {name: own[place.parameter][place.index] for name, place in places.items()}
