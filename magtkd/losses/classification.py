"""The classification loss.

Shapes: N valid utterances, C classes.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

__all__ = ["cross_entropy"]


def cross_entropy(logits: Tensor, label: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Mean cross-entropy of N valid utterances.

    `logits` is [N, C], `label` [N] with classes from 0. `class_weights` [C] weighs each utterance
    by its label's weight, and the mean is then over the sum of these weights.
    """
    return F.cross_entropy(logits, label, class_weights)
