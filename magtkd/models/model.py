"""What a fusion model is, to the configuration and to the stage that trains it.

Shapes: B conversations, L positions, C classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from magtkd.reading import Reads

if TYPE_CHECKING:
    from torch import Tensor, nn

    from magtkd.fusion import FusionOutput

__all__ = ["FusionModel", "Sizes"]


@dataclass(frozen=True)
class Sizes:
    """What the data decide of a model: the width of each modality that is fused, the anchor first,
    and the number of classes and of speakers."""

    widths: Mapping[str, int]
    num_classes: int
    num_speakers: int


class FusionModel(ABC):
    """A fusion model: what it reads of the section `fusion`, its network, and its loss.

    Importing it imports no torch; `build` and `loss` do.
    """

    name: ClassVar[str]
    """The value of `fusion.model`."""
    reads: ClassVar[Reads]
    """The fields that it reads, beside those that every model does."""
    takes_any_width: ClassVar[bool] = False
    """Whether the network maps modalities of any width to `hidden_dim` itself. Otherwise the stage
    puts a linear map before it for each modality of another width."""

    def check(self, section: Any) -> None:  # noqa: B027 (by default, all values do)
        """Raise ValueError, with the way out, for values that do not go together."""

    @abstractmethod
    def build(self, section: Any, sizes: Sizes) -> nn.Module:
        """The network: from text, audio, video [B, L, F], None for those that are not fused, mask
        [B, L] and speaker [B, L] to a `magtkd.fusion.FusionOutput`. Seed torch before."""

    @abstractmethod
    def loss(
        self,
        output: FusionOutput,
        mask: Tensor,
        label: Tensor,
        section: Any,
        class_weights: Tensor | None,
    ) -> Tensor:
        """The training loss of a batch.

        Args:
            output: what the network gave.
            mask: [B, L], true for a real utterance.
            label: [B, L] classes, of any value where padded.
            section: the section in this epoch.
            class_weights: [C] for every cross-entropy, or None.
        """
