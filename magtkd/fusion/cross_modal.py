"""Cross-modal attention encoders: what MAGT and SDT consist of.

A target modality attends to itself and to each source modality (Tsai et al., ACL 2019). Each such
pair is a stream, an encoder and its gate; a target's streams are reduced to one state.

Shapes: B conversations, L positions, H hidden_dim, C classes, M modalities; T targets, of which
the last P predict; D = T * M streams, the T of self-attention first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from magtkd.fusion.dropout import Dropout
from magtkd.fusion.encoder import EncoderLayer, Gate, StackedLinear

__all__ = [
    "GATES",
    "MAGT_STYLE",
    "SDT_STYLE",
    "CrossModalEncoders",
    "GateKind",
    "Style",
    "make_gate",
    "targets_and_sources",
]

GateKind = Literal["learned", "identity", "none"]
GATES: tuple[GateKind, ...] = ("learned", "identity", "none")


@dataclass(frozen=True, kw_only=True)
class Style:
    """In what the published models differ: the `gelu` of the feed-forward map, exact or
    approximated by tanh; whether a self-attention stream drops out its inputs too; whether a gate
    has a bias and a ReLU; whether a head begins with ReLU and dropout."""

    gelu: Literal["none", "tanh"]
    drops_own: bool
    gate_has_relu: bool
    head_has_relu: bool


MAGT_STYLE = Style(gelu="none", drops_own=False, gate_has_relu=True, head_has_relu=False)
SDT_STYLE = Style(gelu="tanh", drops_own=True, gate_has_relu=False, head_has_relu=True)


class CrossModalEncoders(nn.Module):
    """T target modalities, each of which attends to itself and to M - 1 others, and is reduced to H
    again.

    With `shared`, one encoder and one gate serve all streams; else each has its own. The last
    `num_predicting` targets have a head.
    """

    def __init__(
        self,
        *,
        num_targets: int,
        num_predicting: int,
        shared: bool,
        num_modalities: int,
        hidden_dim: int,
        num_heads: int,
        depth: int,
        num_classes: int,
        dropout: float,
        gate: GateKind,
        style: Style,
    ) -> None:
        super().__init__()
        self.num_targets, self.num_others = num_targets, num_modalities - 1
        self.num_predicting, self.style = num_predicting, style
        num_sets = 1 if shared else num_targets * num_modalities
        self.layers = nn.ModuleList(
            EncoderLayer(
                num_sets=num_sets,
                hidden_dim=hidden_dim,
                num_heads=num_heads,
                dropout=dropout,
                first=i == 0,
                gelu=style.gelu,
            )
            for i in range(depth)
        )
        self.gate = make_gate(gate, num_sets, hidden_dim, style)
        self.reduce = StackedLinear(num_targets, num_modalities * hidden_dim, hidden_dim)
        if num_predicting:
            self.head = StackedLinear(num_predicting, hidden_dim, num_classes)
        self.dropout = Dropout(dropout)

    def forward(
        self, targets: Tensor, sources: Tensor, mask_bias: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Hidden states [T, B, L, H] and logits [P, B, L, C], None where P is 0.

        `targets` is [T, B, L, H]; `sources` [T * (M - 1), B, L, H] has what each target attends
        to besides itself, target by target; both with position code and speaker.
        """
        sources = self.dropout(sources)
        crossing = self.dropout(targets.repeat_interleave(self.num_others, dim=0))
        if self.style.drops_own:
            targets = self.dropout(targets)
        queries = torch.cat([targets, crossing])
        for layer in self.layers:
            queries = layer(queries, sources, mask_bias)
        hidden = self.reduce(self._side_by_side(self.gate(queries)))
        return hidden, self._predict(hidden) if self.num_predicting else None

    def _predict(self, hidden: Tensor) -> Tensor:
        predicting = hidden[len(hidden) - self.num_predicting :]
        if self.style.head_has_relu:
            predicting = self.dropout(F.relu(predicting))
        logits: Tensor = self.head(predicting)
        return logits

    def _side_by_side(self, streams: Tensor) -> Tensor:
        """[T, B, L, M * H] from [D, B, L, H]: each target's streams, self-attention first."""
        own, others = streams.split_with_sizes([self.num_targets, len(streams) - self.num_targets])
        shape = own.shape[1:]
        others = others.view(self.num_targets, self.num_others, *shape)
        by_target = torch.cat([own[:, None], others], dim=1)
        return by_target.movedim(1, 3).reshape(self.num_targets, *shape[:2], -1)


def targets_and_sources(
    features: Mapping[str, Tensor], targets: Sequence[str], positions: Tensor
) -> tuple[Tensor, Tensor]:
    """The inputs of `CrossModalEncoders`, [T, B, L, H] and [T * (M - 1), B, L, H].

    Args:
        features: [B, L, H] of each modality.
        targets: the modalities that attend to all others.
        positions: [B, L, H] position code and speaker, which is added to all.
    """
    sources = [features[one] for target in targets for one in features if one != target]
    return (
        torch.stack([features[target] for target in targets]) + positions,
        torch.stack(sources) + positions if sources else positions.new_empty(0, *positions.shape),
    )


def make_gate(kind: GateKind, num_sets: int, hidden_dim: int, style: Style) -> nn.Module:
    """The gate of each stream: with weights of its own, with the identity for these, or none, which
    leaves the stream as it is."""
    if kind == "none":
        return nn.Identity()
    has_relu = style.gate_has_relu
    return Gate(num_sets, hidden_dim, relu=has_relu, bias=has_relu, learned=kind == "learned")
