from __future__ import annotations

import pytest
import torch

from magtkd.fusion.dropout import Dropout


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_drops_at_its_rate_and_keeps_the_mean(rate: float) -> None:
    torch.manual_seed(0)
    ones = torch.ones(101, 997)
    dropped = Dropout(rate)(ones)
    assert (dropped == 0).float().mean().item() == pytest.approx(rate, abs=0.01)
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.02)
    assert dropped.unique().numel() == 2


def test_neighbours_are_independent() -> None:
    torch.manual_seed(0)
    kept = (Dropout(0.5)(torch.ones(101 * 997)) != 0).double()
    for lag in (1, 2, 3, 4, 5):
        correlation = torch.corrcoef(torch.stack([kept[:-lag], kept[lag:]]))[0, 1]
        assert abs(correlation.item()) < 0.015


@pytest.mark.parametrize("shape", [(), (0, 3), (1,), (5, 7), (2, 3, 5)])
def test_keeps_shape(shape: tuple[int, ...]) -> None:
    assert Dropout(0.5)(torch.ones(shape)).shape == shape


def test_gradient_is_the_mask() -> None:
    torch.manual_seed(0)
    inputs = torch.ones(5, 7, requires_grad=True)
    outputs = Dropout(0.25)(inputs)
    outputs.sum().backward()
    torch.testing.assert_close(inputs.grad, outputs.detach())


@pytest.mark.parametrize("rate", [1e-9, 1 - 1e-9])
def test_extreme_rates_stay_finite(rate: float) -> None:
    assert Dropout(rate)(torch.ones(5, 7)).isfinite().all()


def test_evaluation_and_rate_zero_leave_inputs_alone() -> None:
    inputs = torch.randn(5, 7)
    assert torch.equal(Dropout(0.5).eval()(inputs), inputs)
    assert torch.equal(Dropout(0.0)(inputs), inputs)
