"""The parts of the encoders, against their formulas."""

from __future__ import annotations

import math

import pytest
import torch

from magtkd.fusion.encoder import EncoderLayer, StackedLayerNorm


@pytest.mark.parametrize("num_sets", [1, 3])
@pytest.mark.parametrize("scale", [1e-4, 1e-3, 1e-2, 1.0])
def test_a_norm_adds_a_millionth_to_the_variance(num_sets: int, scale: float) -> None:
    # Inputs as small as the published constant show it; with larger ones any would do.
    norm = StackedLayerNorm(num_sets, 4).double()
    with torch.no_grad():
        norm.weight.copy_(torch.arange(1.0, 4 * num_sets + 1).view(num_sets, 4))
        norm.bias.copy_(-norm.weight)
    inputs = 5 + scale * torch.tensor([1.0, -1.0, 1.0, -1.0]).expand(3, 2, 5, 4).double()
    normed = (inputs - 5) / math.sqrt(scale**2 + 1e-6)
    expected = normed * norm.weight[:, None, None] + norm.bias[:, None, None]
    torch.testing.assert_close(norm(inputs), expected)


def test_a_layer_norms_with_nothing_else() -> None:
    layer = EncoderLayer(num_sets=2, hidden_dim=4, num_heads=2, dropout=0.1, first=False)
    norms = [name for name, part in layer.named_modules() if isinstance(part, StackedLayerNorm)]
    assert norms == ["query_norm", "inner_norm"]
    assert not [part for part in layer.modules() if isinstance(part, torch.nn.LayerNorm)]
