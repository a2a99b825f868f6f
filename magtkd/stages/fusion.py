"""The fusion stage: MAGT, or a baseline, on the features of the stages before it.

Shapes: B conversations, L positions, F a stage's width, H hidden_dim.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from magtkd.config import FusionConfig
from magtkd.data import list_matrix
from magtkd.data.conversations import Batch, Conversations
from magtkd.fusion import MAGT, Concat, FusionOutput, fusion_loss
from magtkd.stages.inputs import Inputs
from magtkd.training import Outputs

__all__ = ["make_task"]

MODALITY_OF = {"teacher": "text", "audio": "audio", "video": "video"}


class _Bridged(nn.Module):
    """A fusion model behind a linear map for each modality whose width is not H."""

    def __init__(self, model: MAGT | Concat, widths: Mapping[str, int], hidden_dim: int) -> None:
        super().__init__()
        self.bridges = nn.ModuleDict(
            {
                modality: nn.Linear(width, hidden_dim)
                for modality, width in widths.items()
                if width != hidden_dim
            }
        )
        self.model = model

    def forward(self, batch: Batch) -> FusionOutput:
        features = {
            modality: self.bridges[modality](tensor) if modality in self.bridges else tensor
            for modality, tensor in batch.features.items()
        }
        output: FusionOutput = self.model(
            features.get("text"),
            features.get("audio"),
            features.get("video"),
            batch.mask,
            batch.speaker,
        )
        return output


class _FusionTask:
    model: _Bridged

    def __init__(self, section: FusionConfig, inputs: Inputs, device: torch.device) -> None:
        features = {
            MODALITY_OF[stage]: list_matrix(table, "features")
            for stage, table in inputs.upstream.items()
        }
        self._conversations = Conversations(inputs.data, features)
        self._batch_size = section.batch_size
        self._device = device
        self.num_items = self._conversations.num_conversations("train")
        self._class_weights = inputs.class_weights(section.class_weights, device)
        self._evaluation: dict[str, list[Batch]] = {}
        widths = {modality: matrix_.shape[1] for modality, matrix_ in features.items()}
        self.model = _Bridged(
            _make_model(section, inputs, tuple(widths)), widths, section.hidden_dim
        )

    def batches(self, split: str, generator: torch.Generator | None) -> Iterator[Batch]:
        if generator is not None:
            batches = self._conversations.batches(split, self._batch_size, generator)
            return (batch.to(self._device) for batch in batches)
        if split not in self._evaluation:
            fixed = self._conversations.batches(split, 64, None)
            self._evaluation[split] = [batch.to(self._device) for batch in fixed]
        return iter(self._evaluation[split])

    def loss(self, batch: Batch, section: FusionConfig) -> Tensor:
        return fusion_loss(
            self.model(batch),
            batch.mask,
            batch.label,
            audio_weight=section.audio_weight,
            video_weight=section.video_weight,
            feature_weight=section.feature_weight,
            temperature=section.temperature,
            inter_weight=section.inter_weight,
            intra_weight=section.intra_weight,
            detach_anchor=section.detach_anchor,
            class_weights=self._class_weights,
        )

    def outputs(self, batch: Batch) -> Outputs:
        output = self.model(batch)
        return Outputs(
            batch.row[batch.mask],
            output.anchor_hidden[batch.mask],
            output.anchor_logits[batch.mask],
        )


def _make_model(
    section: FusionConfig, inputs: Inputs, modalities: tuple[str, ...]
) -> MAGT | Concat:
    if section.model == "concat":
        return Concat(
            hidden_dim=section.hidden_dim,
            num_classes=len(inputs.labels),
            dropout=section.dropout,
            modalities=modalities,
        )
    return MAGT(
        hidden_dim=section.hidden_dim,
        num_heads=section.num_heads,
        depth=section.depth,
        num_classes=len(inputs.labels),
        num_speakers=inputs.metadata.num_speakers,
        dropout=section.dropout,
        modalities=modalities,
    )


def make_task(section: FusionConfig, inputs: Inputs, device: torch.device) -> _FusionTask:
    """The task of the fusion stage over whichever modalities there are."""
    return _FusionTask(section, inputs, device)
