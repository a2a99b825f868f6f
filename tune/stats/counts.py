"""Predictions of a split as counts by conversation, and the scores of any sum of them.

A score such as weighted F1 is no mean over conversations, but a function of the sum of their
confusion matrices: a resampling of conversations is a sum with other weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["conversation_counts", "score_counts"]

OF_A_LABEL = "f1/"


def conversation_counts(
    label: NDArray[np.int64],
    prediction: NDArray[np.int64],
    conversation: NDArray[Any],
    num_classes: int,
) -> NDArray[np.int64]:
    """Confusion matrices by conversation, [conversation, true class, predicted class].

    Args:
        label: the true classes, [N], from 0.
        prediction: the predicted ones, [N].
        conversation: what names the conversation of each, [N]; the result is in the order of the
            names, whatever the order of the utterances.
        num_classes: how many classes there are.
    """
    names, index = np.unique(conversation, return_inverse=True)
    cell = (index * num_classes + label) * num_classes + prediction
    counts = np.bincount(cell, minlength=len(names) * num_classes**2)
    return counts.reshape(len(names), num_classes, num_classes).astype(np.int64)


def score_counts(counts: NDArray[Any], metric: str, labels: tuple[str, ...]) -> NDArray[np.float64]:
    """A score of confusion matrices, as `magtkd.metrics.classification_metrics` has it for one.

    Args:
        counts: [..., true class, predicted class].
        metric: `accuracy`, `weighted_f1`, `macro_f1`, or `f1/<label>`.
        labels: the names of the classes.

    Returns:
        [...]; 0 where there is no utterance.

    Raises:
        ValueError: another metric, or a label that is none of these.
    """
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    support, predicted = counts.sum(axis=-1), counts.sum(axis=-2)
    if metric == "accuracy":
        return _ratio(hits.sum(axis=-1), support.sum(axis=-1))
    f1 = _ratio(2 * hits, support + predicted)
    if metric == "weighted_f1":
        return _ratio((f1 * support).sum(axis=-1), support.sum(axis=-1))
    if metric == "macro_f1":
        return _ratio(f1.sum(axis=-1), (support + predicted > 0).sum(axis=-1))
    label = metric.removeprefix(OF_A_LABEL)
    if not metric.startswith(OF_A_LABEL) or label not in labels:
        raise ValueError(f"{metric!r} is no score of predictions over {', '.join(labels)}")
    return np.asarray(f1[..., labels.index(label)], dtype=np.float64)


def _ratio(numerator: NDArray[Any], denominator: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(numerator / np.maximum(denominator, 1), dtype=np.float64)
