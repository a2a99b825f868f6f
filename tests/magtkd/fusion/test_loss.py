from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from magtkd.fusion import FusionOutput, fusion_loss, self_distillation_loss
from magtkd.losses import cross_entropy, divergence_loss, feature_loss, logit_loss

WEIGHTS: dict[str, Any] = {
    "audio_weight": 0.7,
    "video_weight": 0.8,
    "feature_weight": 0.3,
    "temperature": 2.0,
    "feature_temperature": 1.5,
    "inter_weight": 1.5,
    "intra_weight": 0.5,
    "detach_anchor": False,
}
MASK = torch.tensor([[True] * 5, [True, True, False, False, False]])
LABEL = torch.tensor([[0, 1, 2, 1, 0], [2, 2, -100, -100, -100]])
MODALITIES = ("text", "audio", "video")


def draw(*modalities: str, seed: int = 0) -> FusionOutput:
    generator = torch.Generator().manual_seed(seed)
    values: dict[str, Tensor] = {}
    for modality in modalities:
        values[f"{modality}_logits"] = torch.randn(2, 5, 3, generator=generator)
        values[f"{modality}_hidden"] = torch.randn(2, 5, 7, generator=generator)
    return FusionOutput(**{name: value.requires_grad_() for name, value in values.items()})


def present(output: FusionOutput) -> dict[str, Tensor]:
    return {name: value for name, value in vars(output).items() if value is not None}


def gradient(loss: Tensor, of: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(loss, of, retain_graph=True, allow_unused=True)
    return torch.zeros_like(of) if found is None else found


def loss_of(output: FusionOutput, **changes: Any) -> Tensor:
    return fusion_loss(output, MASK, LABEL, **WEIGHTS | changes)


def test_it_is_the_sum_of_its_terms() -> None:
    output = draw(*MODALITIES)
    label = LABEL[MASK]
    rows = {name: value[MASK] for name, value in present(output).items()}
    expected = cross_entropy(rows["text_logits"], label)
    for modality, weight in (("audio", 0.7), ("video", 0.8)):
        logits, hidden = rows[f"{modality}_logits"], rows[f"{modality}_hidden"]
        expected = expected + weight * (
            cross_entropy(logits, label)
            + logit_loss(
                logits, rows["text_logits"], temperature=2.0, inter_weight=1.5, intra_weight=0.5
            )
            + 0.3 * feature_loss(hidden, rows["text_hidden"], temperature=1.5)
        )
    torch.testing.assert_close(loss_of(output), expected)


@given(st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_what_is_padded_does_not_matter(seed: int) -> None:
    output, noise = draw(*MODALITIES), draw(*MODALITIES, seed=seed)
    mixed = {
        name: torch.where(MASK[..., None], value, 100 * present(noise)[name])
        for name, value in present(output).items()
    }
    torch.testing.assert_close(loss_of(FusionOutput(**mixed)), loss_of(output))


def test_padding_gets_no_gradient() -> None:
    output = draw(*MODALITIES)
    for value in present(output).values():
        assert not gradient(loss_of(output), value)[~MASK].any()


def test_gradients_flow_into_the_anchor_unless_detached() -> None:
    output = draw(*MODALITIES)
    alone = gradient(loss_of(output, audio_weight=0.0, video_weight=0.0), output.text_logits)
    assert not torch.allclose(gradient(loss_of(output), output.text_logits), alone)
    detached = loss_of(output, detach_anchor=True)
    torch.testing.assert_close(gradient(detached, output.text_logits), alone)
    assert not gradient(detached, output.text_hidden).any()
    assert gradient(detached, output.audio_logits).any()
    torch.testing.assert_close(detached, loss_of(output))


def test_absent_heads_and_weights_of_zero_are_left_out() -> None:
    output = draw(*MODALITIES)
    text = FusionOutput(text_logits=output.text_logits, text_hidden=output.text_hidden)
    torch.testing.assert_close(loss_of(text), loss_of(output, audio_weight=0.0, video_weight=0.0))
    silent = loss_of(output, video_weight=0.0, feature_weight=0.0)
    assert not gradient(silent, output.video_logits).any()
    assert not gradient(silent, output.audio_hidden).any()


def test_without_text_audio_is_the_anchor() -> None:
    output = draw("audio", "video")
    moved = FusionOutput(
        text_logits=output.audio_logits,
        text_hidden=output.audio_hidden,
        video_logits=output.video_logits,
        video_hidden=output.video_hidden,
    )
    torch.testing.assert_close(loss_of(output), loss_of(moved))


def test_class_weights_weigh_every_cross_entropy() -> None:
    output = draw(*MODALITIES)
    plain = loss_of(output)
    torch.testing.assert_close(loss_of(output, class_weights=torch.full((3,), 5.0)), plain)
    weighted = loss_of(output, class_weights=torch.tensor([1.0, 2.0, 3.0]))
    assert weighted.item() != pytest.approx(plain.item())


def test_one_utterance_is_enough() -> None:
    output = draw(*MODALITIES)
    mask = torch.zeros_like(MASK)
    mask[0, 1] = True
    loss = fusion_loss(output, mask.float(), LABEL, **WEIGHTS)
    assert loss.isfinite()
    assert all(gradient(loss, value).isfinite().all() for value in present(output).values())


# --- with a fused head ------------------------------------------------------------------------

SELF_WEIGHTS: dict[str, Any] = {
    "fused_weight": 0.7,
    "modality_weight": 0.5,
    "distill_weight": 0.3,
    "temperature": 2.0,
    "detach_fused": False,
}


def self_loss_of(output: FusionOutput, **changes: Any) -> Tensor:
    return self_distillation_loss(output, MASK, LABEL, **SELF_WEIGHTS | changes)


def test_a_fused_head_teaches_in_the_anchors_place() -> None:
    output = draw("audio", "video", "fused")
    moved = FusionOutput(
        text_logits=output.fused_logits,
        text_hidden=output.fused_hidden,
        audio_logits=output.audio_logits,
        audio_hidden=output.audio_hidden,
        video_logits=output.video_logits,
        video_hidden=output.video_hidden,
    )
    torch.testing.assert_close(loss_of(output), loss_of(moved))


def test_self_distillation_is_the_sum_of_its_terms() -> None:
    output = draw(*MODALITIES, "fused")
    label = LABEL[MASK]
    rows = {name: value[MASK] for name, value in present(output).items()}
    expected = 0.7 * cross_entropy(rows["fused_logits"], label)
    for modality in MODALITIES:
        logits = rows[f"{modality}_logits"]
        expected = expected + 0.5 * cross_entropy(logits, label)
        expected = expected + 0.3 * divergence_loss(logits, rows["fused_logits"], temperature=2.0)
    torch.testing.assert_close(self_loss_of(output), expected)


def test_self_distillation_reads_no_padding() -> None:
    output, noise = draw(*MODALITIES, "fused"), draw(*MODALITIES, "fused", seed=7)
    mixed = {
        name: torch.where(MASK[..., None], value, 100 * present(noise)[name])
        for name, value in present(output).items()
    }
    torch.testing.assert_close(self_loss_of(FusionOutput(**mixed)), self_loss_of(output))


def test_the_fused_head_learns_from_its_students_unless_detached() -> None:
    output = draw(*MODALITIES, "fused")
    assert output.fused_logits is not None
    alone = gradient(self_loss_of(output, distill_weight=0.0), output.fused_logits)
    assert not torch.allclose(gradient(self_loss_of(output), output.fused_logits), alone)
    detached = self_loss_of(output, detach_fused=True)
    torch.testing.assert_close(gradient(detached, output.fused_logits), alone)
    torch.testing.assert_close(detached, self_loss_of(output))


@pytest.mark.parametrize("name", ["fused_weight", "modality_weight", "distill_weight"])
def test_self_distillation_leaves_out_terms_of_weight_zero(name: str) -> None:
    output = draw(*MODALITIES, "fused")
    without, doubled = self_loss_of(output, **{name: 0.0}), SELF_WEIGHTS[name] * 2
    term = self_loss_of(output) - without
    torch.testing.assert_close(self_loss_of(output, **{name: doubled}), without + 2 * term)


def test_self_distillation_weighs_classes() -> None:
    output = draw(*MODALITIES, "fused")
    plain = self_loss_of(output)
    same = self_loss_of(output, class_weights=torch.full((3,), 5.0))
    torch.testing.assert_close(same, plain)
    weighted = self_loss_of(output, class_weights=torch.tensor([1.0, 2.0, 3.0]))
    assert weighted.item() != pytest.approx(plain.item())
