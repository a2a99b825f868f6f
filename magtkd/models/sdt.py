"""SDT, the transformer with self-distillation (Ma et al., 2023)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from magtkd.models.model import FusionModel, Sizes
from magtkd.reading import Reads, always, is_on
from magtkd.sizes import check_attention_sizes

if TYPE_CHECKING:
    from torch import Tensor, nn

    from magtkd.fusion import FusionOutput

__all__ = ["Sdt"]


class Sdt(FusionModel):
    """All modalities attend to each other, a gate fuses them, and the fused head teaches theirs."""

    name = "sdt"
    reads: ClassVar[Reads] = {
        "num_heads": always,
        "depth": always,
        "gate": always,
        "fused_weight": always,
        "modality_weight": always,
        "distill_weight": always,
        "temperature": is_on("distill_weight"),
        "detach_anchor": is_on("distill_weight"),
    }
    takes_any_width = True

    def check(self, section: Any) -> None:
        check_attention_sizes(section.hidden_dim, section.num_heads)
        if not (section.fused_weight or section.modality_weight or section.distill_weight):
            raise ValueError(
                "fused_weight, modality_weight and distill_weight are all 0, which trains nothing; "
                "set one of them above 0"
            )

    def build(self, section: Any, sizes: Sizes) -> nn.Module:
        from magtkd.fusion import SDT

        return SDT(
            widths=sizes.widths,
            hidden_dim=section.hidden_dim,
            num_heads=section.num_heads,
            depth=section.depth,
            num_classes=sizes.num_classes,
            num_speakers=sizes.num_speakers,
            dropout=section.dropout,
            gate=section.gate,
        )

    def loss(
        self,
        output: FusionOutput,
        mask: Tensor,
        label: Tensor,
        section: Any,
        class_weights: Tensor | None,
    ) -> Tensor:
        from magtkd.fusion import self_distillation_loss

        return self_distillation_loss(
            output,
            mask,
            label,
            fused_weight=section.fused_weight,
            modality_weight=section.modality_weight,
            distill_weight=section.distill_weight,
            temperature=section.temperature,
            detach_fused=section.detach_anchor,
            class_weights=class_weights,
        )
