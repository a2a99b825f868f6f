"""The Multi-modal Anchor Gated Transformer (MAGT, arXiv 2506.18716).

The audio and the video utterances first read themselves and every other modality; the anchor
(text, or the first modality there is) then reads itself and the refined others. One block is one
reading: an encoder and its gate.

Shapes: B conversations, L positions, H hidden_dim, C classes, M modalities; R readers in a
`Readers`, D = R * M readings, the R of themselves first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from magtkd.fusion.dropout import Dropout
from magtkd.fusion.encoder import EncoderLayer, Gate, StackedLinear, mask_to_bias
from magtkd.fusion.modalities import FusionOutput, order_modalities, require_inputs
from magtkd.fusion.published import correspondence, load_published, published_sizes

__all__ = ["MAGT"]

SPEAKER_DEVIATION = 0.1
PUBLISHED_PADDING_SPEAKER = 2


class MAGT(nn.Module):
    """Fuses utterances of up to three modalities, each already `hidden_dim` wide.

    `num_heads` divides `hidden_dim`, which is even; `depth` is the number of layers of each
    encoder. Speakers are 0 to `num_speakers - 1`; padding has a row of its own. Blocks that
    would read a modality outside `modalities` do not exist. Raises ValueError otherwise.
    """

    position_code: Tensor

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
    ) -> None:
        super().__init__()
        _require_sizes(hidden_dim, num_heads)
        self.hidden_dim, self.depth = hidden_dim, depth
        self.modalities = order_modalities(modalities)
        sizes: dict[str, Any] = {
            "num_modalities": len(self.modalities),
            "hidden_dim": hidden_dim,
            "num_heads": num_heads,
            "depth": depth,
            "num_classes": num_classes,
            "dropout": dropout,
        }
        self.speaker_embedding = nn.Embedding(num_speakers + 1, hidden_dim)
        self.padding_speaker = num_speakers
        nn.init.normal_(self.speaker_embedding.weight, std=SPEAKER_DEVIATION)
        num_others = len(self.modalities) - 1
        self.others = Readers(num_readers=num_others, shared=False, **sizes) if num_others else None
        self.anchor = Readers(num_readers=1, shared=True, **sizes)
        self.register_buffer("position_code", sinusoidal_code(32, hidden_dim), persistent=False)

    def forward(
        self,
        text: Tensor | None,
        audio: Tensor | None,
        video: Tensor | None,
        mask: Tensor,
        speaker: Tensor,
    ) -> FusionOutput:
        """Logits and hidden states of each modality.

        Modalities are [B, L, H], or None where built without; `mask` [B, L] is true (or 1) for a
        real utterance; `speaker` [B, L] are integers, of any value where padded. Raises ValueError
        when the modalities are not those it was built with.
        """
        given = require_inputs(self.modalities, self.hidden_dim, text, audio, video)
        mask = mask.bool()
        place = self._place(speaker.masked_fill(~mask, self.padding_speaker))
        bias = mask_to_bias(mask, place.dtype)
        anchor, *others = given
        if self.others is None:
            hidden, logits = place.new_empty(0, *place.shape), place.new_empty(0)
        else:
            readings = [given[read] for reader in others for read in given if read != reader]
            own = torch.stack([given[reader] for reader in others])
            hidden, logits = self.others(own + place, torch.stack(readings) + place, bias)
        anchor_hidden, anchor_logits = self.anchor(
            given[anchor][None] + place, hidden + place, bias
        )
        return FusionOutput.from_modalities(
            dict(zip(given, [anchor_logits[0], *logits], strict=True)),
            dict(zip(given, [anchor_hidden[0], *hidden], strict=True)),
        )

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
        load_published(dict(model.named_parameters()), state, sizes["depth"])
        model.padding_speaker = min(PUBLISHED_PADDING_SPEAKER, sizes["num_speakers"])
        return model

    def to_published(self) -> dict[str, Tensor]:
        """The weights under their published names, without the modules that are never used; the
        inverse of `from_published`.

        The tensors are views of the parameters. Raises ValueError when a modality is absent.
        """
        if len(self.modalities) < 3:
            raise ValueError(
                f"built with {', '.join(self.modalities)}; the published model has all of "
                "text, audio, video"
            )
        own = {name: parameter.detach() for name, parameter in self.named_parameters()}
        places = correspondence(self.depth, self.hidden_dim)
        return {name: own[place.parameter][place.index] for name, place in places.items()}

    def _place(self, speaker: Tensor) -> Tensor:
        """Position code plus speaker embedding, [B, L, H]."""
        length = speaker.shape[1]
        if length > len(self.position_code):
            code = sinusoidal_code(2 * length, self.hidden_dim)
            self.position_code = code.to(self.position_code)
        place: Tensor = self.speaker_embedding(speaker) + self.position_code[:length]
        return place


class Readers(nn.Module):
    """R modalities, each of which reads itself and M - 1 others, and is reduced to H again.

    With `shared`, one encoder and one gate serve all readings; else each has its own.
    """

    def __init__(
        self,
        *,
        num_readers: int,
        shared: bool,
        num_modalities: int,
        hidden_dim: int,
        num_heads: int,
        depth: int,
        num_classes: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.num_readers, self.num_others = num_readers, num_modalities - 1
        num_sets = 1 if shared else num_readers * num_modalities
        self.layers = nn.ModuleList(
            EncoderLayer(
                num_sets=num_sets,
                hidden_dim=hidden_dim,
                num_heads=num_heads,
                dropout=dropout,
                first=i == 0,
            )
            for i in range(depth)
        )
        self.gate = Gate(num_sets, hidden_dim)
        self.reduce = StackedLinear(num_readers, num_modalities * hidden_dim, hidden_dim)
        self.head = StackedLinear(num_readers, hidden_dim, num_classes)
        self.dropout = Dropout(dropout)

    def forward(self, own: Tensor, read: Tensor, mask_bias: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden states [R, B, L, H] and logits [R, B, L, C].

        `own` [R, B, L, H] are the readers; `read` [R * (M - 1), B, L, H] what each of them reads,
        reader by reader; both with position code and speaker.
        """
        # Only the cross encoders drop out their inputs.
        read = self.dropout(read)
        queries = torch.cat([own, self.dropout(own.repeat_interleave(self.num_others, dim=0))])
        for layer in self.layers:
            queries = layer(queries, read, mask_bias)
        hidden = self.reduce(self._side_by_side(self.gate(queries)))
        return hidden, self.head(hidden)

    def _side_by_side(self, readings: Tensor) -> Tensor:
        """[R, B, L, M * H] from [D, B, L, H]: each reader's readings, its own first."""
        own, others = readings.split_with_sizes(
            [self.num_readers, len(readings) - self.num_readers]
        )
        shape = own.shape[1:]
        others = others.view(self.num_readers, self.num_others, *shape)
        by_reader = torch.cat([own[:, None], others], dim=1)
        return by_reader.movedim(1, 3).reshape(self.num_readers, *shape[:2], -1)


def sinusoidal_code(length: int, hidden_dim: int) -> Tensor:
    """Sinusoidal position code [length, hidden_dim] (Vaswani et al., 2017, section 3.5): sine in
    the even columns, cosine in the odd ones."""
    position = torch.arange(length, dtype=torch.float32)[:, None]
    exponent = torch.arange(0, hidden_dim, 2, dtype=torch.float32) / hidden_dim
    angle = position * torch.exp(-math.log(10_000.0) * exponent)
    return torch.stack([torch.sin(angle), torch.cos(angle)], dim=-1).flatten(1)


def _require_sizes(hidden_dim: int, num_heads: int) -> None:
    if hidden_dim % num_heads:
        raise ValueError(
            f"num_heads is {num_heads}, which does not divide hidden_dim, {hidden_dim}; "
            "choose a divisor"
        )
    if hidden_dim % 2:
        raise ValueError(
            f"hidden_dim is {hidden_dim}; the sinusoidal position code needs an even one"
        )
