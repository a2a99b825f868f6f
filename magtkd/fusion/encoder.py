"""Attention encoders that run side by side, and the gates that follow them.

Small encoders one after the other spend their time starting operations, and the optimizer on
counting tensors. So those of one shape run as one: as *streams* along a leading dimension.

Shapes: D streams; G sets of weights, where G is D (each stream its own) or 1 (all share it);
S self-attention streams, which lead; B conversations, L positions, H hidden_dim, I and O widths in
and out.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from magtkd.fusion.dropout import Dropout

__all__ = ["EncoderLayer", "Gate", "StackedLinear", "mask_to_bias"]

NORM_EPSILON = 1e-6


class StackedLinear(nn.Module):
    """G linear maps from I to O, one for each stream of [D, ..., I], or one for all of them.

    `weight` is [G, O, I] and `bias` [G, O] or None, initialised as `torch.nn.Linear` is.
    """

    def __init__(self, num_sets: int, in_dim: int, out_dim: int, *, bias: bool = True) -> None:
        super().__init__()
        bound = 1 / math.sqrt(in_dim)
        self.weight = nn.Parameter(torch.empty(num_sets, out_dim, in_dim).uniform_(-bound, bound))
        self.bias = (
            nn.Parameter(torch.empty(num_sets, out_dim).uniform_(-bound, bound)) if bias else None
        )

    def forward(self, inputs: Tensor) -> Tensor:
        num_sets, out_dim, in_dim = self.weight.shape
        if num_sets == 1:
            return F.linear(inputs, self.weight[0], None if self.bias is None else self.bias[0])
        rows = inputs.reshape(num_sets, -1, in_dim)
        # Of a batch of products, the second factor's gradient comes out transposed and is copied
        # to the parameter's layout. Where there are fewer rows than columns, it is less to copy
        # the outputs and let the weights be the first factor.
        if rows.shape[1] < in_dim:
            outputs = _product(self.weight, rows.transpose(1, 2), self.bias, dim=2)
            outputs = outputs.transpose(1, 2).contiguous()
        else:
            outputs = _product(rows, self.weight.transpose(1, 2), self.bias, dim=1)
        return outputs.view(*inputs.shape[:-1], out_dim)


def _product(left: Tensor, right: Tensor, bias: Tensor | None, dim: int) -> Tensor:
    """`left @ right` of each set, plus the bias [G, O], which is constant along `dim`."""
    if bias is None:
        return torch.bmm(left, right)
    return torch.baddbmm(bias.unsqueeze(dim), left, right)


class StackedLayerNorm(nn.Module):
    """G layer normalisations of [D, B, L, H]; `weight` and `bias` are [G, H]."""

    def __init__(self, num_sets: int, hidden_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_sets, hidden_dim))
        self.bias = nn.Parameter(torch.zeros(num_sets, hidden_dim))

    def forward(self, inputs: Tensor) -> Tensor:
        normed = F.layer_norm(inputs, inputs.shape[-1:], eps=NORM_EPSILON)
        return torch.addcmul(self.bias[:, None, None], self.weight[:, None, None], normed)


class Gate(nn.Module):
    """`sigmoid(f(W x + b)) * x` for each stream of [D, B, L, H].

    `f` is ReLU, so that weights are in [0.5, 1), or nothing. Without `learned`, `W` is the identity
    and there is no `b`.
    """

    def __init__(
        self,
        num_sets: int,
        hidden_dim: int,
        *,
        relu: bool = True,
        bias: bool = True,
        learned: bool = True,
    ) -> None:
        super().__init__()
        self.linear: nn.Module = (
            StackedLinear(num_sets, hidden_dim, hidden_dim, bias=bias) if learned else nn.Identity()
        )
        self.relu = relu

    def forward(self, inputs: Tensor) -> Tensor:
        scores = self.linear(inputs)
        return torch.sigmoid(F.relu(scores) if self.relu else scores) * inputs


class Attention(nn.Module):
    """Multi-head attention of each stream, with biases on all four maps."""

    def __init__(self, num_sets: int, hidden_dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = StackedLinear(num_sets, hidden_dim, hidden_dim)
        self.key_value = StackedLinear(num_sets, hidden_dim, 2 * hidden_dim)
        self.output = StackedLinear(num_sets, hidden_dim, hidden_dim)
        self.dropout = Dropout(dropout)

    def forward(self, query: Tensor, key_value: Tensor, mask_bias: Tensor) -> Tensor:
        """[D, B, L, H] from queries and keys/values [D, B, L, H]; `mask_bias` from
        `mask_to_bias`."""
        num_streams, num_conversations, length, hidden_dim = query.shape
        num_rows, head_dim = num_streams * num_conversations, hidden_dim // self.num_heads
        queries = self.query(query).view(num_rows, length, self.num_heads, head_dim)
        both = self.key_value(key_value).view(num_rows, length, 2, self.num_heads, head_dim)
        keys, values = both.permute(2, 0, 3, 1, 4).unbind()
        scores = queries.transpose(1, 2) @ keys.transpose(-1, -2) / math.sqrt(head_dim)
        scores = scores + mask_bias.repeat(num_streams, 1, 1, 1)
        attended = self.dropout(F.softmax(scores, dim=-1)) @ values
        output: Tensor = self.output(attended.transpose(1, 2).reshape(query.shape))
        return output


class EncoderLayer(nn.Module):
    """One layer of D encoders: attention, then a feed-forward map of inner width H.

    The first layer of a stack takes its queries as they come, the later ones normalise them. The
    GELU is exact, or approximated by tanh.
    """

    def __init__(
        self,
        *,
        num_sets: int,
        hidden_dim: int,
        num_heads: int,
        dropout: float,
        first: bool,
        gelu: Literal["none", "tanh"] = "none",
    ) -> None:
        super().__init__()
        self.gelu = gelu
        self.query_norm = nn.Identity() if first else StackedLayerNorm(num_sets, hidden_dim)
        self.attention = Attention(num_sets, hidden_dim, num_heads, dropout)
        self.inner_norm = StackedLayerNorm(num_sets, hidden_dim)
        self.inner = StackedLinear(num_sets, hidden_dim, hidden_dim)
        self.outer = StackedLinear(num_sets, hidden_dim, hidden_dim)
        self.dropout = Dropout(dropout)

    def forward(self, query: Tensor, source: Tensor, mask_bias: Tensor) -> Tensor:
        """[D, B, L, H] from queries [D, B, L, H] and the sources of the cross-attention streams,
        [D - S, B, L, H]; the S self-attention streams attend to their own queries."""
        query = self.query_norm(query)
        own, _ = query.split_with_sizes([len(query) - len(source), len(source)])
        attended: Tensor = self.attention(query, torch.cat([own, source]), mask_bias)
        attended = self.dropout(attended) + query
        inner = self.dropout(F.gelu(self.inner(self.inner_norm(attended)), approximate=self.gelu))
        output: Tensor = attended + self.dropout(self.outer(inner))
        return output


def mask_to_bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """[B, 1, 1, L] to add to attention scores, from a mask [B, L] true where valid.

    The bias of a padded key is finite, so that a conversation of padding alone gives no NaN.
    """
    bias = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    bias = bias.masked_fill(~mask, torch.finfo(dtype).min / 2)
    return bias[:, None, None]
