"""MAGT with the published implementation's arithmetic, written plainly: one module for each
encoder, one call for each reading, three of them of the shared text encoder.

It is what `fusion_epoch.py` compares with. Parameters bear the published names, so that
`MAGT.to_published` loads into it. Dropout and optimizer are given, to see what each change brings.

Shapes: B conversations, L positions, H hidden_dim, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from magtkd.fusion import FusionOutput
from magtkd.fusion.positions import sinusoidal_code

MakeDropout = Callable[[float], nn.Module]


class PeerAttention(nn.Module):
    def __init__(self, hidden_dim: int, num_heads: int, dropout: nn.Module) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.proj_q, self.proj_k, self.proj_v, self.fc = (
            nn.Linear(hidden_dim, hidden_dim) for _ in range(4)
        )
        self.dropout = dropout

    def forward(self, query: Tensor, read: Tensor, mask: Tensor) -> Tensor:
        batch, length, hidden_dim = query.shape
        head_dim = hidden_dim // self.num_heads

        def heads(values: Tensor) -> Tensor:
            return values.view(batch, -1, self.num_heads, head_dim).transpose(1, 2)

        scores = heads(self.proj_q(query)) / math.sqrt(head_dim)
        scores = scores @ heads(self.proj_k(read)).transpose(2, 3)
        scores = scores.masked_fill(~mask[:, None, None], -1e9)
        attended = self.dropout(F.softmax(scores, dim=-1)) @ heads(self.proj_v(read))
        out: Tensor = self.fc(attended.transpose(1, 2).reshape(batch, length, hidden_dim))
        return out


class PeerFeedForward(nn.Module):
    def __init__(self, hidden_dim: int, dropout: nn.Module) -> None:
        super().__init__()
        self.layer_norm = nn.LayerNorm(hidden_dim, eps=1e-6)
        self.w_1, self.w_2 = (nn.Linear(hidden_dim, hidden_dim) for _ in range(2))
        self.dropout = dropout

    def forward(self, states: Tensor) -> Tensor:
        inner = self.dropout(F.gelu(self.w_1(self.layer_norm(states))))
        out: Tensor = states + self.dropout(self.w_2(inner))
        return out


class PeerEncoder(nn.Module):
    """One layer, as published; a self encoder where `query` is `read`."""

    def __init__(self, hidden_dim: int, num_heads: int, dropout: nn.Module) -> None:
        super().__init__()
        layer = nn.Module()
        layer.self_attn = PeerAttention(hidden_dim, num_heads, dropout)
        layer.feed_forward = PeerFeedForward(hidden_dim, dropout)
        self.transformer_inter = nn.ModuleList([layer])
        self.dropout = dropout

    def forward(self, read: Tensor, query: Tensor, place: Tensor, mask: Tensor) -> Tensor:
        if read is query:
            read = query = query + place
        else:
            read, query = self.dropout(read + place), self.dropout(query + place)
        layer: Any = self.transformer_inter[0]
        attended = self.dropout(layer.self_attn(query, read, mask)) + query
        out: Tensor = layer.feed_forward(attended)
        return out


class PeerGate(nn.Module):
    def __init__(self, hidden_dim: int) -> None:
        super().__init__()
        self.fc = nn.Linear(hidden_dim, hidden_dim)

    def forward(self, states: Tensor) -> Tensor:
        return torch.sigmoid(F.relu(self.fc(states))) * states


class PeerMAGT(nn.Module):
    """The published model at depth 1, without the modules that it never uses."""

    def __init__(
        self,
        *,
        hidden_dim: int,
        num_heads: int,
        num_classes: int,
        num_speakers: int,
        dropout: float,
        make_dropout: MakeDropout,
    ) -> None:
        super().__init__()
        self.padding_speaker = num_speakers
        self.speaker_embeddings = nn.Embedding(num_speakers + 1, hidden_dim)
        self.register_buffer("code", sinusoidal_code(128, hidden_dim), persistent=False)
        for name in ("t_t", "a_a", "t_a", "v_a", "v_v", "t_v", "a_v"):
            encoder = PeerEncoder(hidden_dim, num_heads, make_dropout(dropout))
            self.add_module(name, encoder)
            self.add_module(f"{name}_gate", PeerGate(hidden_dim))
        for letter in "tav":
            self.add_module(f"features_reduce_{letter}", nn.Linear(3 * hidden_dim, hidden_dim))
            self.add_module(f"w_{letter}", nn.Linear(hidden_dim, num_classes))

    def forward(
        self, text: Tensor, audio: Tensor, video: Tensor, mask: Tensor, speaker: Tensor
    ) -> FusionOutput:
        """As `magtkd.fusion.MAGT`'s."""
        speaker = speaker.masked_fill(~mask, self.padding_speaker)
        place = self.speaker_embeddings(speaker) + self.get_buffer("code")[: mask.shape[1]]

        def read(name: str, source: Tensor, reader: Tensor) -> Tensor:
            states = self.get_submodule(name)(source, reader, place, mask)
            gated: Tensor = self.get_submodule(f"{name}_gate")(states)
            return gated

        def reduce(letter: str, *readings: Tensor) -> tuple[Tensor, Tensor]:
            state = self.get_submodule(f"features_reduce_{letter}")(torch.cat(readings, dim=-1))
            return state, self.get_submodule(f"w_{letter}")(state)

        a, a_logits = reduce(
            "a", read("a_a", audio, audio), read("t_a", text, audio), read("v_a", video, audio)
        )
        v, v_logits = reduce(
            "v", read("v_v", video, video), read("t_v", text, video), read("a_v", audio, video)
        )
        t, t_logits = reduce(
            "t", read("t_t", text, text), read("t_t", a, text), read("t_t", v, text)
        )
        return FusionOutput.from_modalities(
            {"text": t_logits, "audio": a_logits, "video": v_logits},
            {"text": t, "audio": a, "video": v},
        )
