"""Sizes that attention can have. Imports no torch: configurations are checked by it too."""

from __future__ import annotations

__all__ = ["check_attention_sizes"]


def check_attention_sizes(hidden_dim: int, num_heads: int) -> None:
    """Raise ValueError where the heads or the position code cannot have these sizes."""
    if hidden_dim % num_heads:
        raise ValueError(
            f"num_heads is {num_heads}, which does not divide hidden_dim, {hidden_dim}; "
            "choose a divisor"
        )
    if hidden_dim % 2:
        raise ValueError(
            f"hidden_dim is {hidden_dim}; the sinusoidal position code needs an even one"
        )
