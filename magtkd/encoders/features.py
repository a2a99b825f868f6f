"""The encoder of utterance-level features, which the teacher and the students share."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["FeatureEncoder"]


class FeatureEncoder(nn.Module):
    """Normalise, linear map, GELU, dropout.

    Args:
        input_dim: width F of the features.
        hidden_dim: width H of what comes out.
        dropout: dropout rate.
    """

    def __init__(self, *, input_dim: int, hidden_dim: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(input_dim)
        self.linear = nn.Linear(input_dim, hidden_dim)
        self.activation = nn.GELU()
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: Tensor) -> Tensor:
        """[N, F] features to [N, H] hidden features."""
        hidden: Tensor = self.dropout(self.activation(self.linear(self.norm(features))))
        return hidden
