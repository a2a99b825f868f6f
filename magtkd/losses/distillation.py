"""What a student learns from a teacher: the logit loss and the feature loss (arXiv 2506.18716), and
the plain divergence of the predictions.

All are zero when student and teacher are equal, and let gradients into the teacher: pass
`teacher.detach()` where the teacher is not to move.

Shapes: N valid utterances, C classes, H features.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["divergence_loss", "feature_loss", "logit_loss"]

EPSILON = 1e-8


def divergence_loss(
    student_logits: Tensor, teacher_logits: Tensor, *, temperature: float
) -> Tensor:
    """Mean over utterances of `KL(softmax(teacher / temperature) || softmax(student /
    temperature))`, not multiplied by `temperature` squared (SDT, Ma et al., 2023).

    Both logits are [N, C] with N >= 1. Raises ValueError when the shapes differ.
    """
    _require_same_shape(student_logits, teacher_logits)
    student = F.log_softmax(_at_least_single(student_logits) / temperature, dim=1)
    teacher = F.log_softmax(_at_least_single(teacher_logits) / temperature, dim=1)
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True)


def logit_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    temperature: float,
    inter_weight: float = 1.0,
    intra_weight: float = 1.0,
) -> Tensor:
    """Distance of the softened predictions by correlation instead of by divergence (DIST, Huang et
    al., 2022).

    Both logits are [N, C] with N >= 1. Inter-class compares the C probabilities of each utterance,
    intra-class the N probabilities of each class; each is the mean of `1 - Pearson`, and a weight
    of 0 leaves its term out. The sum is multiplied by `temperature` squared. Raises ValueError
    when the shapes differ.
    """
    _require_same_shape(student_logits, teacher_logits)
    if not inter_weight and not intra_weight:
        return student_logits.new_zeros((), dtype=_single(student_logits))
    student = F.softmax(_at_least_single(student_logits) / temperature, dim=1)
    teacher = F.softmax(_at_least_single(teacher_logits) / temperature, dim=1)
    loss = student.new_zeros(())
    if inter_weight:
        loss = loss + inter_weight * _correlation_distance(student, teacher)
    if intra_weight:
        loss = loss + intra_weight * _correlation_distance(student.T, teacher.T)
    return temperature**2 * loss


def feature_loss(
    student_features: Tensor, teacher_features: Tensor, *, temperature: float
) -> Tensor:
    """Divergence of the student's from the teacher's similarities between utterances.

    Both features are [N, H] with N >= 1. Each utterance of the teacher is compared, by cosine over
    `temperature`, with all N of the teacher (the target distribution) and with all N of the student
    (the prediction); the result is the mean of the N Kullback-Leibler divergences, the target's
    entropy included. Raises ValueError when the shapes differ.
    """
    _require_same_shape(student_features, teacher_features)
    # Autocast would multiply in half precision, which is coarser than what near cosines differ by.
    with torch.autocast(student_features.device.type, enabled=False):
        student = _unit_rows(_at_least_single(student_features))
        teacher = _unit_rows(_at_least_single(teacher_features))
        target = F.log_softmax(teacher @ teacher.T / temperature, dim=1)
        prediction = F.log_softmax(teacher @ student.T / temperature, dim=1)
    return F.kl_div(prediction, target, reduction="batchmean", log_target=True)


def _correlation_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over rows of `1 - Pearson`."""
    student = student - student.mean(dim=1, keepdim=True)
    teacher = teacher - teacher.mean(dim=1, keepdim=True)
    # The root's slope is infinite at 0, where a row is constant; the floor makes it 0 there.
    tiny = torch.finfo(student.dtype).tiny
    norms = (student.square().sum(dim=1) * teacher.square().sum(dim=1)).clamp(min=tiny).sqrt()
    # EPSILON alone would count rows that agree but hardly vary as uncorrelated. This adds it to
    # the numerator too as the rows approach each other, and is invisible elsewhere.
    agreement = EPSILON / (EPSILON + (student - teacher).square().sum(dim=1))
    covariance = (student * teacher).sum(dim=1)
    return (1 - (covariance + EPSILON * agreement) / (norms + EPSILON)).mean()


def _unit_rows(features: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(features, dim=1, keepdim=True)
    # A row of zeros stays one, with a gradient that is not divided by a tiny number.
    unit: Tensor = features / norms.masked_fill(norms == 0, 1.0)
    return unit


def _at_least_single(values: Tensor) -> Tensor:
    """Half precision does not hold EPSILON."""
    return values.to(_single(values))


def _single(values: Tensor) -> torch.dtype:
    return torch.promote_types(values.dtype, torch.float32)


def _require_same_shape(student: Tensor, teacher: Tensor) -> None:
    if student.shape != teacher.shape:
        raise ValueError(
            f"the student's {list(student.shape)} and the teacher's {list(teacher.shape)} differ; "
            "bridge different widths by a linear map"
        )
