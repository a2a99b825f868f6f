"""The losses of the fusion models.

Shapes: B conversations, L positions, N valid utterances, C classes.
"""

from __future__ import annotations

from torch import Tensor

from magtkd.fusion.modalities import FusionOutput
from magtkd.losses import cross_entropy, divergence_loss, feature_loss, logit_loss

__all__ = ["fusion_loss", "prediction_loss", "self_distillation_loss"]


def prediction_loss(
    output: FusionOutput, mask: Tensor, label: Tensor, class_weights: Tensor | None = None
) -> Tensor:
    """The cross-entropy of the prediction over valid utterances, for a model without other heads.

    `mask` and `label` are [B, L] as in `fusion_loss`; `class_weights` [C] weigh it.
    """
    valid = mask.flatten().nonzero().squeeze(1)
    return cross_entropy(_rows(output.predicted_logits, valid), _rows(label, valid), class_weights)


def fusion_loss(
    output: FusionOutput,
    mask: Tensor,
    label: Tensor,
    *,
    audio_weight: float,
    video_weight: float,
    feature_weight: float,
    temperature: float,
    feature_temperature: float,
    inter_weight: float,
    intra_weight: float,
    detach_anchor: bool,
    class_weights: Tensor | None = None,
) -> Tensor:
    """`CE(anchor) + audio_weight * K(audio) + video_weight * K(video)` over valid utterances, with
    `K(m) = CE(m) + logit_loss(m, anchor) + feature_weight * feature_loss(m, anchor)`. Where the
    model has a fused head instead of an anchor, that is what predicts and teaches.

    `mask` [B, L] is true (or 1) for a real utterance, `label` [B, L] its class; at least one
    utterance is real. Heads that are absent and terms of weight 0 are left out. Gradients flow from
    `K` into the anchor, as published, unless `detach_anchor`. `class_weights` [C] weigh every CE.
    Source: arXiv 2506.18716 and its code, where `temperature` is 2, `feature_temperature` 1, and
    `feature_weight` 0 for MELD and 1 for IEMOCAP.
    """
    valid = mask.flatten().nonzero().squeeze(1)
    label = _rows(label, valid)
    target_logits = _rows(output.predicted_logits, valid)
    target_hidden = _rows(output.predicted_hidden, valid)
    loss = cross_entropy(target_logits, label, class_weights)
    if detach_anchor:
        target_logits, target_hidden = target_logits.detach(), target_hidden.detach()
    weights = {"audio": audio_weight, "video": video_weight}
    for modality in output.taught:
        if not weights[modality]:
            continue
        logits = _rows(output.logits[modality], valid)
        term = cross_entropy(logits, label, class_weights) + logit_loss(
            logits,
            target_logits,
            temperature=temperature,
            inter_weight=inter_weight,
            intra_weight=intra_weight,
        )
        if feature_weight:
            hidden = _rows(output.hidden[modality], valid)
            distance = feature_loss(hidden, target_hidden, temperature=feature_temperature)
            term = term + feature_weight * distance
        loss = loss + weights[modality] * term
    return loss


def self_distillation_loss(
    output: FusionOutput,
    mask: Tensor,
    label: Tensor,
    *,
    fused_weight: float,
    modality_weight: float,
    distill_weight: float,
    temperature: float,
    detach_fused: bool,
    class_weights: Tensor | None = None,
) -> Tensor:
    """`fused_weight * CE(fused) + sum over the modalities of modality_weight * CE(modality) +
    distill_weight * divergence_loss(modality, fused)`, over valid utterances.

    `mask` and `label` are [B, L] as in `fusion_loss`; terms of weight 0 are left out. Gradients
    flow from the divergence into the fused head, as published, unless `detach_fused`.
    `class_weights` [C] weigh every CE. Source: SDT (Ma et al., 2023), where all weights are 1.
    """
    valid = mask.flatten().nonzero().squeeze(1)
    label = _rows(label, valid)
    fused = _rows(output.predicted_logits, valid)
    target = fused.detach() if detach_fused else fused
    loss = fused.new_zeros(())
    if fused_weight:
        loss = loss + fused_weight * cross_entropy(fused, label, class_weights)
    for modality in output.taught:
        logits = _rows(output.logits[modality], valid)
        if modality_weight:
            loss = loss + modality_weight * cross_entropy(logits, label, class_weights)
        if distill_weight:
            divergence = divergence_loss(logits, target, temperature=temperature)
            loss = loss + distill_weight * divergence
    return loss


def _rows(values: Tensor, valid: Tensor) -> Tensor:
    """[N, ...] from [B, L, ...]."""
    return values.flatten(0, 1)[valid]
