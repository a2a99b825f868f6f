"""What goes into a fusion model and what comes out of it.

Shapes: B conversations, L positions, H hidden_dim, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

__all__ = ["MODALITIES", "FusionOutput", "order_modalities", "require_inputs"]

MODALITIES = ("text", "audio", "video")


@dataclass(frozen=True, kw_only=True)
class FusionOutput:
    """Logits [B, L, C] and hidden states [B, L, H] of each modality; None where there is none.

    The anchor is the first of text, audio and video that is there; its logits are the prediction,
    unless the model has a fused head, whose logits and hidden state are no modality's.
    """

    text_logits: Tensor | None = None
    audio_logits: Tensor | None = None
    video_logits: Tensor | None = None
    text_hidden: Tensor | None = None
    audio_hidden: Tensor | None = None
    video_hidden: Tensor | None = None
    fused_logits: Tensor | None = None
    fused_hidden: Tensor | None = None

    @classmethod
    def from_modalities(
        cls,
        logits: Mapping[str, Tensor],
        hidden: Mapping[str, Tensor],
        *,
        fused_logits: Tensor | None = None,
        fused_hidden: Tensor | None = None,
    ) -> FusionOutput:
        """The output with the given modalities' logits and hidden states."""
        return cls(
            **{f"{modality}_logits": value for modality, value in logits.items()},
            **{f"{modality}_hidden": value for modality, value in hidden.items()},
            fused_logits=fused_logits,
            fused_hidden=fused_hidden,
        )

    @property
    def logits(self) -> dict[str, Tensor]:
        """Logits [B, L, C] by modality, the anchor first, without those that are None."""
        return self._present(self.text_logits, self.audio_logits, self.video_logits)

    @property
    def hidden(self) -> dict[str, Tensor]:
        """Hidden states [B, L, H] by modality, the anchor first, without those that are None."""
        return self._present(self.text_hidden, self.audio_hidden, self.video_hidden)

    @property
    def predicted_logits(self) -> Tensor:
        """The logits [B, L, C] of the prediction: the fused head's, or the anchor's."""
        return next(iter(self.logits.values())) if self.fused_logits is None else self.fused_logits

    @property
    def predicted_hidden(self) -> Tensor:
        """The hidden state [B, L, H] behind the prediction."""
        return next(iter(self.hidden.values())) if self.fused_hidden is None else self.fused_hidden

    @property
    def taught(self) -> tuple[str, ...]:
        """The modalities whose heads learn from the prediction: all with a head but the anchor."""
        names = tuple(self.logits)
        return names[1:] if self.fused_logits is None else names

    @staticmethod
    def _present(*values: Tensor | None) -> dict[str, Tensor]:
        named = zip(MODALITIES, values, strict=True)
        return {modality: value for modality, value in named if value is not None}


def order_modalities(modalities: Sequence[str]) -> tuple[str, ...]:
    """The modalities in the order text, audio, video, so that the anchor comes first.

    Raises ValueError when there is none, one is unknown, or one comes twice.
    """
    ordered = tuple(modality for modality in MODALITIES if modality in modalities)
    if not ordered or len(ordered) != len(modalities):
        raise ValueError(
            f"modalities {list(modalities)}: choose one or more of {', '.join(MODALITIES)}, "
            "once each"
        )
    return ordered


def require_inputs(
    modalities: Iterable[str],
    width: int | None,
    text: Tensor | None,
    audio: Tensor | None,
    video: Tensor | None,
) -> dict[str, Tensor]:
    """The inputs [B, L, F] by modality, when they are those that the model was built with.

    `width` is that of every modality; None where `modalities` maps each to its own. Raises
    ValueError when other modalities are given, or one is not as wide as it should be.
    """
    every = zip(MODALITIES, (text, audio, video), strict=True)
    given = {modality: features for modality, features in every if features is not None}
    if tuple(given) != tuple(modalities):
        raise ValueError(
            f"built with {', '.join(modalities)} but given {', '.join(given) or 'none'}; "
            "give None for exactly the modalities it was built without"
        )
    for modality, features in given.items():
        if width is not None and features.shape[-1] != width:
            raise ValueError(
                f"{modality} is {features.shape[-1]} wide but hidden_dim is {width}; "
                "map it to hidden_dim first"
            )
        if isinstance(modalities, Mapping) and features.shape[-1] != modalities[modality]:
            raise ValueError(
                f"{modality} is {features.shape[-1]} wide but was built for {modalities[modality]}"
            )
    return given
