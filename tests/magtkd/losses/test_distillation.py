from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from magtkd.losses import cross_entropy, divergence_loss, feature_loss, logit_loss

GOLDEN = Path(__file__).parents[2] / "golden" / "distillation_losses.npz"

seeds = st.integers(0, 2**32 - 1)
num_rows = st.integers(1, 11)
temperatures = st.floats(0.25, 8.0)
scales = st.sampled_from([0.0, 1e-3, 1.0, 30.0])


def draw(seed: int, rows: int, columns: int, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (rows, columns)
    return (
        scale * torch.randn(shape, generator=generator, dtype=torch.float64),
        scale * torch.randn(shape, generator=generator, dtype=torch.float64),
    )


def distances(student: Tensor, teacher: Tensor, temperature: float) -> list[Tensor]:
    return [
        logit_loss(student, teacher, temperature=temperature),
        feature_loss(student, teacher, temperature=temperature),
        divergence_loss(student, teacher, temperature=temperature),
    ]


@given(seeds, num_rows, temperatures, scales)
@settings(max_examples=50, deadline=None)
def test_equal_student_and_teacher_lose_nothing(
    seed: int, rows: int, temperature: float, scale: float
) -> None:
    teacher, _ = draw(seed, rows, 7, scale)
    for loss in distances(teacher.clone(), teacher, temperature):
        assert loss.item() == pytest.approx(0.0, abs=1e-7)


@given(seeds, num_rows, temperatures, scales)
@settings(max_examples=50, deadline=None)
def test_losses_and_gradients_are_finite_and_losses_not_negative(
    seed: int, rows: int, temperature: float, scale: float
) -> None:
    student, teacher = draw(seed, rows, 7, scale)
    student = student.float().requires_grad_()
    for loss in distances(student, teacher.float(), temperature):
        (gradient,) = torch.autograd.grad(loss, student)
        assert loss.item() >= -1e-5
        assert gradient.isfinite().all()


@given(seeds, st.integers(2, 11), temperatures)
@settings(max_examples=25, deadline=None)
def test_order_of_utterances_does_not_matter(seed: int, rows: int, temperature: float) -> None:
    student, teacher = draw(seed, rows, 7)
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))
    before = distances(student, teacher, temperature)
    after = distances(student[order], teacher[order], temperature)
    torch.testing.assert_close(after, before)


@given(seeds, temperatures)
@settings(max_examples=25, deadline=None)
def test_correlation_ignores_what_softmax_ignores(seed: int, temperature: float) -> None:
    student, teacher = draw(seed, 5, 7)
    shift = torch.arange(5, dtype=torch.float64)[:, None]
    torch.testing.assert_close(
        logit_loss(student + shift, teacher, temperature=temperature),
        logit_loss(student, teacher, temperature=temperature),
    )


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("constant", ["student", "teacher", "both"])
def test_constant_logits_give_finite_gradients(rows: int, constant: str) -> None:
    student, teacher = (logits.float() for logits in draw(0, rows, 7))
    if constant in ("student", "both"):
        student = torch.zeros(rows, 7)
    if constant in ("teacher", "both"):
        teacher = torch.zeros(rows, 7)
    student.requires_grad_()
    for loss in distances(student, teacher, 2.0):
        (gradient,) = torch.autograd.grad(loss, student)
        assert loss.isfinite()
        assert gradient.isfinite().all()


def test_a_student_that_collapsed_is_uncorrelated() -> None:
    _, teacher = draw(0, 5, 7)
    collapsed = torch.zeros_like(teacher)
    assert logit_loss(collapsed, teacher, temperature=1.0).item() == pytest.approx(2.0, abs=1e-4)


def test_a_detached_teacher_gets_no_gradient_and_another_does() -> None:
    student, teacher = draw(3, 5, 7)
    student.requires_grad_()
    teacher.requires_grad_()
    for loss in distances(student, teacher.detach(), 2.0):
        assert torch.autograd.grad(loss, teacher, allow_unused=True) == (None,)
    for loss in distances(student, teacher, 2.0):
        assert torch.autograd.grad(loss, teacher)[0].abs().sum() > 0


@pytest.mark.parametrize("loss", [logit_loss, feature_loss, divergence_loss])
def test_gradients_agree_with_differences(loss) -> None:  # type: ignore[no-untyped-def]
    student, teacher = draw(5, 3, 5)
    inputs = (student.requires_grad_(), teacher.requires_grad_())
    assert torch.autograd.gradcheck(lambda s, t: loss(s, t, temperature=1.5), inputs)


def test_weights_scale_their_terms() -> None:
    student, teacher = draw(7, 5, 7)

    def loss(inter_weight: float, intra_weight: float) -> float:
        return logit_loss(
            student,
            teacher,
            temperature=2.0,
            inter_weight=inter_weight,
            intra_weight=intra_weight,
        ).item()

    assert loss(0.0, 0.0) == 0.0
    assert loss(3.0, 5.0) == pytest.approx(3 * loss(1.0, 0.0) + 5 * loss(0.0, 1.0))


def test_temperature_squared_scales_the_logit_loss() -> None:
    student, teacher = draw(11, 5, 7)
    softened = logit_loss(student, teacher, temperature=3.0)
    divided = logit_loss(student / 3, teacher / 3, temperature=1.0)
    torch.testing.assert_close(softened, 9 * divided)


def test_a_row_of_zero_features_has_a_moderate_gradient() -> None:
    student, teacher = draw(13, 5, 7)
    student[2] = 0
    student.requires_grad_()
    (gradient,) = torch.autograd.grad(feature_loss(student, teacher, temperature=1.0), student)
    assert gradient.abs().max() < 10


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gives_finite_gradients(dtype: torch.dtype) -> None:
    student, teacher = (logits.to(dtype) for logits in draw(17, 5, 7))
    student.requires_grad_()
    exact = distances(student.double(), teacher.double(), 2.0)
    for loss, expected in zip(distances(student, teacher, 2.0), exact, strict=True):
        (gradient,) = torch.autograd.grad(loss, student)
        assert gradient.isfinite().all()
        assert loss.item() == pytest.approx(expected.item(), abs=1e-5)


def test_autocast_does_not_make_cosines_coarse() -> None:
    teacher = torch.randn(4, 64, generator=torch.Generator().manual_seed(1))
    student = teacher + 0.01 * torch.randn(4, 64, generator=torch.Generator().manual_seed(2))
    expected = feature_loss(student, teacher, temperature=0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(feature_loss(student, teacher, temperature=0.1), expected)


@pytest.mark.parametrize("loss", [logit_loss, feature_loss, divergence_loss])
def test_different_widths_are_refused(loss) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=r"\[5, 7\] and the teacher's \[5, 11\] differ"):
        loss(torch.zeros(5, 7), torch.zeros(5, 11), temperature=1.0)


@pytest.mark.parametrize("case", ["0", "1", "2"])
def test_golden_losses(case: str) -> None:
    with np.load(GOLDEN) as golden:
        values = {name[2:]: torch.tensor(golden[name]) for name in golden if name[0] == case}
    logit = logit_loss(
        values["student_logits"],
        values["teacher_logits"],
        temperature=values["logit_temperature"].item(),
        inter_weight=values["inter_weight"].item(),
        intra_weight=values["intra_weight"].item(),
    )
    feature = feature_loss(
        values["student_hidden"],
        values["teacher_hidden"],
        temperature=values["feature_temperature"].item(),
    )
    entropy = cross_entropy(values["student_logits"], values["label"])
    for name, loss in (
        ("logit_loss", logit),
        ("feature_loss", feature),
        ("cross_entropy", entropy),
    ):
        assert loss.item() == pytest.approx(values[name].item(), abs=1e-5), name
