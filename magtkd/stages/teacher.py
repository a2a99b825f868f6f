"""The text teacher: features through a feature encoder, or prompts through a transformer.

Shapes: N utterances of a batch, H hidden_dim, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from magtkd.config import TeacherConfig
from magtkd.encoders.prompts import know_speakers
from magtkd.encoders.text import TextEncoder
from magtkd.encoders.tokens import TokenBatch
from magtkd.losses import cross_entropy
from magtkd.stages.inputs import Inputs
from magtkd.stages.utterances import FeatureClassifier, FeatureTask
from magtkd.training import Outputs

__all__ = ["make_task"]

EVALUATION_BATCH = 64


class _FeatureTeacher(FeatureTask):
    model: FeatureClassifier

    def __init__(self, section: TeacherConfig, inputs: Inputs, device: torch.device) -> None:
        super().__init__(inputs, "text", section, device)
        self.model = FeatureClassifier(
            input_dim=self.features.shape[1],
            hidden_dim=section.hidden_dim,
            num_classes=len(inputs.labels),
            dropout=section.dropout,
        )

    def loss(self, batch: Tensor, section: TeacherConfig) -> Tensor:
        _, logits = self.model(self.features[batch])
        return cross_entropy(logits, self.label[batch], self.class_weights)


class _PromptClassifier(nn.Module):
    """A text encoder and a linear head: prompts to hidden features [N, H] and logits [N, C]."""

    def __init__(self, encoder: TextEncoder, hidden_dim: int, num_classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(hidden_dim, num_classes)

    def forward(self, batch: TokenBatch) -> tuple[Tensor, Tensor]:
        hidden = self.encoder(batch.input_ids, batch.attention_mask)
        return hidden, self.head(hidden)


class _PromptTeacher:
    model: _PromptClassifier

    def __init__(self, section: TeacherConfig, inputs: Inputs, device: torch.device) -> None:
        self._device, self._batch_size = device, section.batch_size
        self._rows = inputs.rows_by_split()
        self._label = torch.from_numpy(inputs.label).to(device)
        self._class_weights = inputs.class_weights(section.class_weights, device)
        self._rows_to_learn = inputs.rows_to_learn()
        self.num_items = len(self._rows_to_learn)
        columns = {
            name: inputs.data.column(name).to_pylist()
            for name in ("split", "dialogue_id", "speaker", "text")
        }
        encoder = _make_encoder(section, columns, inputs.split == "train")
        self._utterances = encoder.encode_inputs(
            splits=columns["split"],
            dialogues=columns["dialogue_id"],
            speakers=columns["speaker"],
            texts=columns["text"],
            context=section.context,
        )
        self.model = _PromptClassifier(encoder, section.hidden_dim, len(inputs.labels))

    def batches(self, split: str, generator: torch.Generator | None) -> Iterator[TokenBatch]:
        rows, size = self._rows[split], EVALUATION_BATCH
        if generator is not None:
            rows, size = self._rows_to_learn, self._batch_size
        for batch in self._utterances.batches(rows, size, generator):
            yield batch.to(self._device)

    def loss(self, batch: TokenBatch, section: TeacherConfig) -> Tensor:
        _, logits = self.model(batch)
        return cross_entropy(logits, self._label[batch.row], self._class_weights)

    def num_utterances(self, batch: TokenBatch) -> int:
        return len(batch.row)

    def outputs(self, batch: TokenBatch) -> Outputs:
        hidden, logits = self.model(batch)
        return Outputs(batch.row, hidden, logits)


def _make_encoder(
    section: TeacherConfig, columns: dict[str, list[str]], is_train: np.ndarray
) -> TextEncoder:
    train = {
        name: [value for value, wanted in zip(values, is_train, strict=True) if wanted]
        for name, values in columns.items()
    }
    return TextEncoder(
        section.encoder,
        texts=train["text"],
        known_speakers=know_speakers(train["dialogue_id"], train["speaker"]),
        hidden_dim=section.hidden_dim,
        dropout=section.dropout,
        prompt_length=section.prompt_length,
        template=section.template,
        train=section.train,
        max_length=section.max_length,
        gradient_checkpointing=section.gradient_checkpointing,
        lora=(section.lora.rank, section.lora.alpha) if section.lora else None,
    )


def make_task(
    section: TeacherConfig, inputs: Inputs, device: torch.device
) -> _FeatureTeacher | _PromptTeacher:
    """The teacher's task, on features or on prompts."""
    if section.encoder == "features":
        return _FeatureTeacher(section, inputs, device)
    return _PromptTeacher(section, inputs, device)
