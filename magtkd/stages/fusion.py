"""The fusion stage: MAGT, SDT or a baseline, on what the stages before it made, or on the table.

Shapes: B conversations, L positions, F a stage's width, H hidden_dim.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from magtkd.config import FusionConfig
from magtkd.data import list_matrix
from magtkd.data.conversations import Batch, Conversations
from magtkd.fusion import MAGT, SDT, Concat, FusionOutput, fusion_loss, self_distillation_loss
from magtkd.fusion.published.checkpoint import load_initial
from magtkd.stages.inputs import Inputs
from magtkd.training import Outputs

__all__ = ["FusionTask", "make_task"]

FusionModel = MAGT | SDT | Concat


class _Bridged(nn.Module):
    """A fusion model behind a linear map for each modality whose width is not H; SDT has such maps
    of its own."""

    def __init__(self, model: FusionModel, widths: Mapping[str, int], hidden_dim: int) -> None:
        super().__init__()
        self.bridges = nn.ModuleDict(
            {
                modality: nn.Linear(width, hidden_dim)
                for modality, width in widths.items()
                if width != hidden_dim and not isinstance(model, SDT)
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


class FusionTask:
    """The loss and the outputs of a fusion model on batches of conversations; `widths` has the
    width of each modality that it is given."""

    model: _Bridged

    def __init__(self, section: FusionConfig, inputs: Inputs, device: torch.device) -> None:
        features = _fusion_features(section, inputs)
        self._conversations = Conversations(inputs.data, features)
        self._batch_size = section.batch_size
        self._device = device
        self.num_items = self._conversations.num_conversations("train")
        self._class_weights = inputs.class_weights(section.class_weights, device)
        self._evaluation: dict[str, list[Batch]] = {}
        self.widths = {modality: matrix.shape[1] for modality, matrix in features.items()}
        model = _make_model(section, inputs, self.widths)
        self.model = _Bridged(model, self.widths, section.hidden_dim)
        if section.initial is not None:
            load_initial(self.model, section.initial, inputs.labels)

    def batches(self, split: str, generator: torch.Generator | None) -> Iterator[Batch]:
        if generator is not None:
            batches = self._conversations.batches(split, self._batch_size, generator)
            return (batch.to(self._device) for batch in batches)
        if split not in self._evaluation:
            fixed = self._conversations.batches(split, 64, None)
            self._evaluation[split] = [batch.to(self._device) for batch in fixed]
        return iter(self._evaluation[split])

    def loss(self, batch: Batch, section: FusionConfig) -> Tensor:
        output = self.model(batch)
        if section.model == "sdt":
            return self_distillation_loss(
                output,
                batch.mask,
                batch.label,
                fused_weight=section.fused_weight,
                modality_weight=section.modality_weight,
                distill_weight=section.distill_weight,
                temperature=section.temperature,
                detach_fused=section.detach_anchor,
                class_weights=self._class_weights,
            )
        return fusion_loss(
            output,
            batch.mask,
            batch.label,
            audio_weight=section.audio_weight,
            video_weight=section.video_weight,
            feature_weight=section.feature_weight,
            temperature=section.temperature,
            feature_temperature=section.feature_temperature,
            inter_weight=section.inter_weight,
            intra_weight=section.intra_weight,
            detach_anchor=section.detach_anchor,
            class_weights=self._class_weights,
        )

    def num_utterances(self, batch: Batch) -> int:
        return int(batch.mask.sum())

    def outputs(self, batch: Batch) -> Outputs:
        output = self.model(batch)
        return Outputs(
            batch.row[batch.mask],
            output.predicted_hidden[batch.mask],
            output.predicted_logits[batch.mask],
        )


def _fusion_features(section: FusionConfig, inputs: Inputs) -> dict[str, np.ndarray]:
    """The features [num_utterances, F] of each modality that is fused."""
    if section.inputs == "table":
        found = {
            modality: list_matrix(inputs.data, f"{modality}_features")
            for modality in inputs.metadata.features
        }
    else:
        found = {
            modality: list_matrix(table, "features") for modality, table in inputs.tables.items()
        }
    wanted = section.fused_modalities or tuple(found)
    return {modality: matrix for modality, matrix in found.items() if modality in wanted}


def _make_model(section: FusionConfig, inputs: Inputs, widths: Mapping[str, int]) -> FusionModel:
    num_classes, num_speakers = len(inputs.labels), inputs.metadata.num_speakers
    if section.model == "concat":
        return Concat(
            hidden_dim=section.hidden_dim,
            num_classes=num_classes,
            dropout=section.dropout,
            modalities=tuple(widths),
        )
    if section.model == "sdt":
        return SDT(
            widths=widths,
            hidden_dim=section.hidden_dim,
            num_heads=section.num_heads,
            depth=section.depth,
            num_classes=num_classes,
            num_speakers=num_speakers,
            dropout=section.dropout,
            gate=section.gate,
        )
    return MAGT(
        hidden_dim=section.hidden_dim,
        num_heads=section.num_heads,
        depth=section.depth,
        num_classes=num_classes,
        num_speakers=num_speakers,
        dropout=section.dropout,
        modalities=tuple(widths),
        gate=section.gate,
        anchor=section.anchor,
    )


def make_task(section: FusionConfig, inputs: Inputs, device: torch.device) -> FusionTask:
    """The task of the fusion stage over whichever modalities there are.

    Raises:
        ConfigError: the weights to start from are not of this model.
    """
    return FusionTask(section, inputs, device)
