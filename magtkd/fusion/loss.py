"""The loss of a fusion model.

Shapes: B conversations, L positions, N valid utterances, C classes.
"""

from __future__ import annotations

from torch import Tensor

from magtkd.fusion.modalities import FusionOutput
from magtkd.losses import cross_entropy, feature_loss, logit_loss

__all__ = ["fusion_loss"]


def fusion_loss(
    output: FusionOutput,
    mask: Tensor,
    label: Tensor,
    *,
    audio_weight: float,
    video_weight: float,
    feature_weight: float,
    temperature: float,
    inter_weight: float,
    intra_weight: float,
    detach_anchor: bool,
    class_weights: Tensor | None = None,
) -> Tensor:
    """`CE(anchor) + audio_weight * K(audio) + video_weight * K(video)` over valid utterances, with
    `K(m) = CE(m) + logit_loss(m, anchor) + feature_weight * feature_loss(m, anchor)`.

    `mask` [B, L] is true (or 1) for a real utterance, `label` [B, L] its class; at least one
    utterance is real. Heads that are absent and terms of weight 0 are left out. Gradients flow from
    `K` into the anchor, as published, unless `detach_anchor`. `class_weights` [C] weigh every CE.
    Source: arXiv 2506.18716 and its code; `feature_weight` is 0 for MELD and 1 for IEMOCAP.
    """
    valid = mask.flatten().nonzero().squeeze(1)
    label = _rows(label, valid)
    anchor_logits = _rows(output.anchor_logits, valid)
    anchor_hidden = _rows(output.anchor_hidden, valid)
    loss = cross_entropy(anchor_logits, label, class_weights)
    if detach_anchor:
        anchor_logits, anchor_hidden = anchor_logits.detach(), anchor_hidden.detach()
    weights = {"audio": audio_weight, "video": video_weight}
    _, *others = output.logits
    for modality in others:
        if not weights[modality]:
            continue
        logits = _rows(output.logits[modality], valid)
        term = cross_entropy(logits, label, class_weights) + logit_loss(
            logits,
            anchor_logits,
            temperature=temperature,
            inter_weight=inter_weight,
            intra_weight=intra_weight,
        )
        if feature_weight:
            hidden = _rows(output.hidden[modality], valid)
            distance = feature_loss(hidden, anchor_hidden, temperature=temperature)
            term = term + feature_weight * distance
        loss = loss + weights[modality] * term
    return loss


def _rows(values: Tensor, valid: Tensor) -> Tensor:
    """[N, ...] from [B, L, ...]."""
    return values.flatten(0, 1)[valid]
