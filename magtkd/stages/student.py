"""The audio and video students, taught by the teacher (arXiv 2506.18716, section on distillation).

Shapes: N utterances of a batch, H the student's hidden_dim, T the teacher's, C classes.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from magtkd.config import StudentConfig
from magtkd.data import list_matrix
from magtkd.losses import cross_entropy, feature_loss, logit_loss
from magtkd.stages.inputs import Inputs
from magtkd.stages.utterances import FeatureClassifier, FeatureTask

__all__ = ["make_task"]


class _Student(nn.Module):
    """A classifier, and a linear bridge to the teacher's width where that differs."""

    def __init__(self, classifier: FeatureClassifier, bridge: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier
        self.bridge = bridge

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        hidden, logits = self.classifier(features)
        return hidden, logits


class _StudentTask(FeatureTask):
    model: _Student

    def __init__(
        self, section: StudentConfig, inputs: Inputs, modality: str, device: torch.device
    ) -> None:
        super().__init__(inputs, modality, section, device)
        teacher = inputs.upstream.get("teacher")
        if teacher is None and section.distill is not None:
            warnings.warn(f"{modality}.distill is ignored: there is no teacher", stacklevel=2)
        classifier = FeatureClassifier(
            input_dim=self.features.shape[1],
            hidden_dim=section.hidden_dim,
            num_classes=len(inputs.labels),
            dropout=section.dropout,
        )
        bridge: nn.Module = nn.Identity()
        if teacher is not None:
            # Constants from the artifact: the teacher can get no gradient.
            self._teacher_logits = torch.tensor(list_matrix(teacher, "logits"), device=device)
            self._teacher_features = torch.tensor(list_matrix(teacher, "features"), device=device)
            teacher_dim = self._teacher_features.shape[1]
            if teacher_dim != section.hidden_dim:
                bridge = nn.Linear(section.hidden_dim, teacher_dim)
        self._has_teacher = teacher is not None
        self.model = _Student(classifier, bridge)

    def loss(self, batch: Tensor, section: StudentConfig) -> Tensor:
        hidden, logits = self.model(self.features[batch])
        loss = cross_entropy(logits, self.label[batch], self.class_weights)
        distill = section.distill
        if distill is None or not self._has_teacher:
            return loss
        if distill.logit_weight:
            loss = loss + distill.logit_weight * logit_loss(
                logits,
                self._teacher_logits[batch],
                temperature=distill.temperature,
                inter_weight=distill.inter_weight,
                intra_weight=distill.intra_weight,
            )
        if distill.feature_weight:
            loss = loss + distill.feature_weight * feature_loss(
                self.model.bridge(hidden),
                self._teacher_features[batch],
                temperature=distill.feature_temperature,
            )
        return loss


def make_task(
    section: StudentConfig, inputs: Inputs, modality: str, device: torch.device
) -> _StudentTask:
    """The task of the student of a modality, `audio` or `video`."""
    return _StudentTask(section, inputs, modality, device)
