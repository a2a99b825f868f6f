from __future__ import annotations

import math

import pytest
import torch

from magtkd.losses import cross_entropy


def test_uniform_logits_cost_the_logarithm_of_the_number_of_classes() -> None:
    loss = cross_entropy(torch.zeros(3, 5), torch.tensor([0, 4, 2]))
    assert loss.item() == pytest.approx(math.log(5))


def test_class_weights_weigh_the_mean() -> None:
    logits = torch.tensor([[2.0, 0.0], [2.0, 0.0]])
    label = torch.tensor([0, 1])
    right, wrong = math.log(1 + math.exp(-2)), math.log(1 + math.exp(2))
    weighted = cross_entropy(logits, label, torch.tensor([3.0, 1.0]))
    assert weighted.item() == pytest.approx((3 * right + wrong) / 4)


def test_equal_class_weights_change_nothing() -> None:
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    label = torch.tensor([0, 1, 2, 1, 0])
    torch.testing.assert_close(
        cross_entropy(logits, label, torch.full((3,), 7.0)), cross_entropy(logits, label)
    )
