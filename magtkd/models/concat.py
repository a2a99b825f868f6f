"""The baseline: two layers on the features side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from magtkd.models.model import FusionModel, Sizes
from magtkd.reading import Reads

if TYPE_CHECKING:
    from torch import Tensor, nn

    from magtkd.fusion import FusionOutput

__all__ = ["Concat"]


class Concat(FusionModel):
    """Each utterance by itself, and one head."""

    name = "concat"
    reads: ClassVar[Reads] = {}

    def build(self, section: Any, sizes: Sizes) -> nn.Module:
        from magtkd.fusion import Concat as Network

        return Network(
            hidden_dim=section.hidden_dim,
            num_classes=sizes.num_classes,
            dropout=section.dropout,
            modalities=tuple(sizes.widths),
        )

    def loss(
        self,
        output: FusionOutput,
        mask: Tensor,
        label: Tensor,
        section: Any,
        class_weights: Tensor | None,
    ) -> Tensor:
        from magtkd.fusion import prediction_loss

        return prediction_loss(output, mask, label, class_weights)
