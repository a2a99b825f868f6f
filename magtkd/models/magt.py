"""MAGT, the multi-modal anchor gated transformer (arXiv 2506.18716)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from magtkd.models.model import FusionModel, Sizes
from magtkd.reading import Given, Reads, Why, always
from magtkd.sizes import check_attention_sizes

if TYPE_CHECKING:
    from torch import Tensor, nn

    from magtkd.fusion import FusionOutput

__all__ = ["Magt"]


def _why_not_taught(modality: str) -> Why:
    """The weight of a modality's head is read where that head learns from another."""

    def why(section: Any, given: Given) -> str | None:
        if modality not in given.modalities:
            return f"{modality} is not fused"
        is_anchor = section.anchor and modality == given.modalities[0]
        return f"{modality} is the anchor, which learns from no other head" if is_anchor else None

    return why


_TAUGHT = {"audio_weight": _why_not_taught("audio"), "video_weight": _why_not_taught("video")}


def _some_head(section: Any, given: Given) -> str | None:
    """Read where a head learns from another with a weight."""
    if any(getattr(section, name) and not why(section, given) for name, why in _TAUGHT.items()):
        return None
    return "no head with a weight learns from another"


def _logits(section: Any, given: Given) -> str | None:
    if section.inter_weight or section.intra_weight:
        return _some_head(section, given)
    return "inter_weight and intra_weight are 0"


def _features(section: Any, given: Given) -> str | None:
    return _some_head(section, given) if section.feature_weight else "feature_weight is 0"


def _teaching(section: Any, given: Given) -> str | None:
    if section.inter_weight or section.intra_weight or section.feature_weight:
        return _some_head(section, given)
    return "inter_weight, intra_weight and feature_weight are 0"


class Magt(FusionModel):
    """Text attends to the refined audio and video, and predicts."""

    name = "magt"
    reads: ClassVar[Reads] = {
        "num_heads": always,
        "depth": always,
        "gate": always,
        "anchor": always,
        **_TAUGHT,
        "feature_weight": _some_head,
        "temperature": _logits,
        "feature_temperature": _features,
        "inter_weight": _some_head,
        "intra_weight": _some_head,
        "detach_anchor": _teaching,
    }

    def check(self, section: Any) -> None:
        check_attention_sizes(section.hidden_dim, section.num_heads)

    def build(self, section: Any, sizes: Sizes) -> nn.Module:
        from magtkd.fusion import MAGT

        return MAGT(
            hidden_dim=section.hidden_dim,
            num_heads=section.num_heads,
            depth=section.depth,
            num_classes=sizes.num_classes,
            num_speakers=sizes.num_speakers,
            dropout=section.dropout,
            modalities=tuple(sizes.widths),
            gate=section.gate,
            anchor=section.anchor,
        )

    def loss(
        self,
        output: FusionOutput,
        mask: Tensor,
        label: Tensor,
        section: Any,
        class_weights: Tensor | None,
    ) -> Tensor:
        from magtkd.fusion import fusion_loss

        return fusion_loss(
            output,
            mask,
            label,
            audio_weight=section.audio_weight,
            video_weight=section.video_weight,
            feature_weight=section.feature_weight,
            temperature=section.temperature,
            feature_temperature=section.feature_temperature,
            inter_weight=section.inter_weight,
            intra_weight=section.intra_weight,
            detach_anchor=section.detach_anchor,
            class_weights=class_weights,
        )
