"""What the feature teacher and the students share: a classifier of single utterances.

Shapes: N utterances of a batch, F features, H hidden_dim, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from magtkd.config import TrainingSection
from magtkd.data import list_matrix
from magtkd.encoders.features import FeatureEncoder
from magtkd.stages.inputs import Inputs
from magtkd.training import Outputs

__all__ = ["FeatureClassifier", "FeatureTask"]

EVALUATION_BATCH = 1024


class FeatureClassifier(nn.Module):
    """A feature encoder and a linear head: [N, F] to hidden features [N, H] and logits [N, C]."""

    def __init__(
        self, *, input_dim: int, hidden_dim: int, num_classes: int, dropout: float
    ) -> None:
        super().__init__()
        self.encoder = FeatureEncoder(input_dim=input_dim, hidden_dim=hidden_dim, dropout=dropout)
        self.head = nn.Linear(hidden_dim, num_classes)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.encoder(features)
        return hidden, self.head(hidden)


class FeatureTask:
    """Batches of row numbers over one modality's features; a subclass adds `model` and `loss`.

    Args:
        inputs: the prepared table.
        modality: whose features.
        section: the stage's section.
        device: where to compute.
        features: [num_utterances, F] instead of those of the table.
    """

    model: nn.Module

    def __init__(
        self,
        inputs: Inputs,
        modality: str,
        section: TrainingSection,
        device: torch.device,
        features: Tensor | None = None,
    ) -> None:
        if features is None:
            table = list_matrix(inputs.data, f"{modality}_features")
            features = torch.tensor(table, device=device)
        self.features = features
        self.label = torch.from_numpy(inputs.label).to(device)
        self.class_weights = inputs.class_weights(section.class_weights, device)
        self._rows = {split: rows.to(device) for split, rows in inputs.rows_by_split().items()}
        self._batch_size = section.batch_size
        self._rows_to_learn = inputs.rows_to_learn().to(device)
        self.num_items = len(self._rows_to_learn)

    def batches(self, split: str, generator: torch.Generator | None) -> Iterator[Tensor]:
        if generator is None:
            return iter(torch.split(self._rows[split], EVALUATION_BATCH))
        rows = self._rows_to_learn
        order = torch.randperm(len(rows), generator=generator).to(rows.device)
        return iter(torch.split(rows[order], self._batch_size))

    def num_utterances(self, batch: Tensor) -> int:
        return len(batch)

    def outputs(self, batch: Tensor) -> Outputs:
        hidden, logits = self.model(self.features[batch])
        return Outputs(batch, hidden, logits)
