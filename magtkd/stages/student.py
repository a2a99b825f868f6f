"""The audio and video students, taught by the teacher (arXiv 2506.18716, section on distillation).

Shapes: N utterances of a batch, H the student's hidden_dim, T the teacher's, C classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from magtkd.config import StudentConfig
from magtkd.data import list_matrix
from magtkd.encoders import AudioEncoder, ClipEncoder, ClipOptions, VideoEncoder
from magtkd.encoders.batching import length_batches
from magtkd.losses import cross_entropy, feature_loss, logit_loss
from magtkd.stages.clips import ClipLoader
from magtkd.stages.inputs import Inputs
from magtkd.stages.utterances import FeatureClassifier, FeatureTask
from magtkd.training import Outputs

__all__ = ["make_task"]


class _StudentLoss:
    """A student's loss: cross-entropy, and distillation where there is a teacher."""

    def __init__(
        self, section: StudentConfig, inputs: Inputs, modality: str, device: torch.device
    ) -> None:
        self._label = torch.from_numpy(inputs.label).to(device)
        self._class_weights = inputs.class_weights(section.class_weights, device)
        teacher = inputs.tables.get("text")
        if teacher is None and section.distill is not None:
            warnings.warn(f"{modality}.distill is ignored: there is no teacher", stacklevel=2)
        self._has_teacher = teacher is not None
        self.teacher_dim = section.hidden_dim
        if teacher is not None:
            # Constants from the artifact: the teacher can get no gradient.
            self._teacher_logits = torch.tensor(list_matrix(teacher, "logits"), device=device)
            self._teacher_features = torch.tensor(list_matrix(teacher, "features"), device=device)
            self.teacher_dim = self._teacher_features.shape[1]

    def bridge(self, hidden_dim: int) -> nn.Module:
        """From the student's width to the teacher's, where that differs."""
        if self.teacher_dim == hidden_dim:
            return nn.Identity()
        return nn.Linear(hidden_dim, self.teacher_dim)

    def __call__(
        self, hidden: Tensor, logits: Tensor, bridge: nn.Module, rows: Tensor, section: Any
    ) -> Tensor:
        """The loss of hidden features [N, H] and logits [N, C] of these rows [N]."""
        loss = cross_entropy(logits, self._label[rows], self._class_weights)
        distill = section.distill
        if distill is None or not self._has_teacher:
            return loss
        if distill.logit_weight:
            loss = loss + distill.logit_weight * logit_loss(
                logits,
                self._teacher_logits[rows],
                temperature=distill.temperature,
                inter_weight=distill.inter_weight,
                intra_weight=distill.intra_weight,
            )
        if distill.feature_weight:
            loss = loss + distill.feature_weight * feature_loss(
                bridge(hidden),
                self._teacher_features[rows],
                temperature=distill.feature_temperature,
            )
        return loss


class _Student(nn.Module):
    """A classifier, and a linear bridge to the teacher's width where that differs."""

    def __init__(self, classifier: FeatureClassifier, bridge: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier
        self.bridge = bridge

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        hidden, logits = self.classifier(features)
        return hidden, logits


class _ClipStudent(_Student):
    """A student that trains the encoder of its clips too."""

    def __init__(
        self, encoder: ClipEncoder, classifier: FeatureClassifier, bridge: nn.Module
    ) -> None:
        super().__init__(classifier, bridge)
        self.encoder = encoder

    def forward(self, *clips: Tensor) -> tuple[Tensor, Tensor]:
        hidden, logits = self.classifier(self.encoder(*clips))
        return hidden, logits


class _StudentTask(FeatureTask):
    """A student of features: the table's, or those of an encoder that stays as it is."""

    model: _Student

    def __init__(
        self,
        section: StudentConfig,
        inputs: Inputs,
        modality: str,
        device: torch.device,
        features: Tensor | None = None,
    ) -> None:
        super().__init__(inputs, modality, section, device, features)
        self._student_loss = _StudentLoss(section, inputs, modality, device)
        classifier = _classifier(section, inputs, self.features.shape[1])
        self.model = _Student(classifier, self._student_loss.bridge(section.hidden_dim))

    def loss(self, batch: Tensor, section: StudentConfig) -> Tensor:
        hidden, logits = self.model(self.features[batch])
        return self._student_loss(hidden, logits, self.model.bridge, batch, section)


class _ClipTask:
    """A student of clips. A batch is row numbers; its clips are read when it is used."""

    model: _ClipStudent

    def __init__(
        self, section: StudentConfig, inputs: Inputs, modality: str, device: torch.device
    ) -> None:
        self._student_loss = _StudentLoss(section, inputs, modality, device)
        encoder = _make_encoder(section, inputs, modality)
        classifier = _classifier(section, inputs, encoder.width)
        self.model = _ClipStudent(
            encoder, classifier, self._student_loss.bridge(section.hidden_dim)
        )
        self._clips = inputs.media[modality]
        self._loader = ClipLoader(self._clips, encoder.collate, device)
        self._rows = inputs.rows_by_split()
        self._batch_size = section.batch_size
        self._rows_to_learn = inputs.rows_to_learn()
        self.num_items = len(self._rows_to_learn)

    def batches(self, split: str, generator: torch.Generator | None) -> Iterator[Tensor]:
        rows = self._rows[split] if generator is None else self._rows_to_learn
        parts = length_batches(self._clips.lengths, rows, self._batch_size, generator)
        return self._loader.expect([torch.from_numpy(part) for part in parts])

    def loss(self, batch: Tensor, section: StudentConfig) -> Tensor:
        hidden, logits = self.model(*self._loader.load(batch))
        return self._student_loss(hidden, logits, self.model.bridge, batch, section)

    def num_utterances(self, batch: Tensor) -> int:
        return len(batch)

    def outputs(self, batch: Tensor) -> Outputs:
        hidden, logits = self.model(*self._loader.load(batch))
        return Outputs(batch, hidden, logits)


def _classifier(section: StudentConfig, inputs: Inputs, input_dim: int) -> FeatureClassifier:
    return FeatureClassifier(
        input_dim=input_dim,
        hidden_dim=section.hidden_dim,
        num_classes=len(inputs.labels),
        dropout=section.dropout,
    )


def _make_encoder(section: StudentConfig, inputs: Inputs, modality: str) -> ClipEncoder:
    options: ClipOptions = {
        "pooling": section.pooling,
        "dropout": section.dropout,
        "gradient_checkpointing": section.gradient_checkpointing,
        "lora": (section.lora.rank, section.lora.alpha) if section.lora else None,
    }
    if modality == "audio":
        return AudioEncoder(section.encoder, **options)
    return VideoEncoder(section.encoder, shape=inputs.media[modality].shape, **options)


def _encoded(section: StudentConfig, inputs: Inputs, modality: str, device: torch.device) -> Tensor:
    """[num_utterances, W] of an encoder that stays as it is: once for all epochs."""
    encoder = _make_encoder(section, inputs, modality).to(device).eval()
    clips = inputs.media[modality]
    loader = ClipLoader(clips, encoder.collate, device)
    result = torch.empty(len(clips), encoder.width, device=device)
    is_mixed = device.type == "cuda" and section.precision != "float32"
    parts = length_batches(clips.lengths, range(len(clips)), section.batch_size)
    with (
        torch.no_grad(),
        torch.autocast(device.type, dtype=getattr(torch, section.precision), enabled=is_mixed),
    ):
        for batch in loader.expect([torch.from_numpy(part) for part in parts]):
            result[batch.to(device)] = encoder(*loader.load(batch)).float()
    return result


def make_task(
    section: StudentConfig, inputs: Inputs, modality: str, device: torch.device
) -> _StudentTask | _ClipTask:
    """The task of the student of a modality, `audio` or `video`."""
    if section.encoder == "features":
        return _StudentTask(section, inputs, modality, device)
    if section.train == "head":
        features = _encoded(section, inputs, modality, device)
        return _StudentTask(section, inputs, modality, device, features)
    return _ClipTask(section, inputs, modality, device)
