"""The fusion stage: a fusion model on what the stages before it made, or on the table.

Shapes: B conversations, L positions, F a stage's width, H hidden_dim.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from magtkd.config import FusionConfig
from magtkd.data import NO_LABEL, list_matrix
from magtkd.data.conversations import Batch, Conversations
from magtkd.fusion import FusionOutput
from magtkd.fusion.published.checkpoint import load_initial
from magtkd.models import MODELS, FusionModel, Sizes
from magtkd.stages.inputs import Inputs
from magtkd.training import Outputs

__all__ = ["FusionTask", "make_task"]


class _Bridged(nn.Module):
    """A fusion model's network, behind a linear map for each modality whose width is not H unless
    it takes any width."""

    def __init__(self, model: FusionModel, section: FusionConfig, sizes: Sizes) -> None:
        super().__init__()
        # The network first: the order decides which random numbers each gets.
        network = model.build(section, sizes)
        self.bridges = nn.ModuleDict(
            {
                modality: nn.Linear(width, section.hidden_dim)
                for modality, width in sizes.widths.items()
                if width != section.hidden_dim and not model.takes_any_width
            }
        )
        self.model = network

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
        self.num_items = len(self._conversations.with_labels("train"))
        self._class_weights = inputs.class_weights(section.class_weights, device)
        self._evaluation: dict[str, list[Batch]] = {}
        self.widths = {modality: matrix.shape[1] for modality, matrix in features.items()}
        sizes = Sizes(self.widths, len(inputs.labels), inputs.metadata.num_speakers)
        self.model = _Bridged(MODELS[section.model], section, sizes)
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
        loss = MODELS[section.model].loss
        return loss(output, batch.label != NO_LABEL, batch.label, section, self._class_weights)

    def num_utterances(self, batch: Batch) -> int:
        return int((batch.label != NO_LABEL).sum())

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


def make_task(section: FusionConfig, inputs: Inputs, device: torch.device) -> FusionTask:
    """The task of the fusion stage over whichever modalities there are.

    Raises:
        ConfigError: the weights to start from are not of this model.
    """
    return FusionTask(section, inputs, device)
