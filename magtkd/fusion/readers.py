"""Modalities that read themselves and each other: what MAGT and SDT are made of.

One block is one reading: an encoder and its gate. A reader's readings are reduced to one state.

Shapes: B conversations, L positions, H hidden_dim, C classes, M modalities; R readers, of which
the last P predict; D = R * M readings, the R of themselves first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from magtkd.fusion.dropout import Dropout
from magtkd.fusion.encoder import EncoderLayer, Gate, StackedLinear

__all__ = ["GATES", "MAGT_STYLE", "SDT_STYLE", "GateKind", "Readers", "Style", "make_gate"]

GateKind = Literal["learned", "identity", "none"]
GATES: tuple[GateKind, ...] = ("learned", "identity", "none")


@dataclass(frozen=True, kw_only=True)
class Style:
    """In what the published models differ: the `gelu` of the feed-forward map, exact or
    approximated by tanh; whether a self encoder drops out its inputs too; whether a gate has a bias
    and a ReLU; whether a head begins with ReLU and dropout."""

    gelu: Literal["none", "tanh"]
    drops_own: bool
    gate_has_relu: bool
    head_has_relu: bool


MAGT_STYLE = Style(gelu="none", drops_own=False, gate_has_relu=True, head_has_relu=False)
SDT_STYLE = Style(gelu="tanh", drops_own=True, gate_has_relu=False, head_has_relu=True)


class Readers(nn.Module):
    """R modalities, each of which reads itself and M - 1 others, and is reduced to H again.

    With `shared`, one encoder and one gate serve all readings; else each has its own. The last
    `num_predicting` readers have a head.
    """

    def __init__(
        self,
        *,
        num_readers: int,
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
        self.num_readers, self.num_others = num_readers, num_modalities - 1
        self.num_predicting, self.style = num_predicting, style
        num_sets = 1 if shared else num_readers * num_modalities
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
        self.reduce = StackedLinear(num_readers, num_modalities * hidden_dim, hidden_dim)
        if num_predicting:
            self.head = StackedLinear(num_predicting, hidden_dim, num_classes)
        self.dropout = Dropout(dropout)

    def forward(self, own: Tensor, read: Tensor, mask_bias: Tensor) -> tuple[Tensor, Tensor | None]:
        """Hidden states [R, B, L, H] and logits [P, B, L, C], None where P is 0.

        `own` [R, B, L, H] are the readers; `read` [R * (M - 1), B, L, H] what each of them reads,
        reader by reader; both with position code and speaker.
        """
        read = self.dropout(read)
        crossing = self.dropout(own.repeat_interleave(self.num_others, dim=0))
        if self.style.drops_own:
            own = self.dropout(own)
        queries = torch.cat([own, crossing])
        for layer in self.layers:
            queries = layer(queries, read, mask_bias)
        hidden = self.reduce(self._side_by_side(self.gate(queries)))
        return hidden, self._predict(hidden) if self.num_predicting else None

    def _predict(self, hidden: Tensor) -> Tensor:
        predicting = hidden[len(hidden) - self.num_predicting :]
        if self.style.head_has_relu:
            predicting = self.dropout(F.relu(predicting))
        logits: Tensor = self.head(predicting)
        return logits

    def _side_by_side(self, readings: Tensor) -> Tensor:
        """[R, B, L, M * H] from [D, B, L, H]: each reader's readings, its own first."""
        own, others = readings.split_with_sizes(
            [self.num_readers, len(readings) - self.num_readers]
        )
        shape = own.shape[1:]
        others = others.view(self.num_readers, self.num_others, *shape)
        by_reader = torch.cat([own[:, None], others], dim=1)
        return by_reader.movedim(1, 3).reshape(self.num_readers, *shape[:2], -1)


def make_gate(kind: GateKind, num_sets: int, hidden_dim: int, style: Style) -> nn.Module:
    """The gate behind each reading: with weights of its own, with the identity for these, or none,
    which lets the reading pass as it is."""
    if kind == "none":
        return nn.Identity()
    has_relu = style.gate_has_relu
    return Gate(num_sets, hidden_dim, relu=has_relu, bias=has_relu, learned=kind == "learned")
