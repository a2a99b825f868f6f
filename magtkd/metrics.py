"""Classification metrics of one split.

Imports no torch, so that a process that only reads results stays small.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "OVERALL",
    "Report",
    "Scores",
    "classification_metrics",
    "confusion_matrix",
    "with_label",
]

OVERALL = ("accuracy", "weighted_f1", "macro_f1")
"""The scores of a split that are one number."""


def with_label(label: NDArray[Any], values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Labels [N] and what belongs to them [N, ...], without the utterances that have none: there,
    the label is negative."""
    has_label = label >= 0
    return label[has_label], values[has_label]


def confusion_matrix(
    label: ArrayLike, prediction: ArrayLike, num_classes: int
) -> NDArray[np.int64]:
    """Counts of utterances, [true class, predicted class].

    `label` and `prediction` are [N] with classes from 0 to `num_classes - 1`. Raises ValueError
    when their lengths differ or a class is out of that range.
    """
    label, prediction = _classes("label", label), _classes("prediction", prediction)
    if label.shape != prediction.shape:
        raise ValueError(f"{label.size} labels and {prediction.size} predictions; pass one of each")
    for name, values in (("label", label), ("prediction", prediction)):
        if values.size and not 0 <= values.min() <= values.max() < num_classes:
            outside = values.min() if values.min() < 0 else values.max()
            raise ValueError(f"{name} {outside} is not among the classes 0 to {num_classes - 1}")
    counts = np.bincount(label * num_classes + prediction, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes).astype(np.int64)


def classification_metrics(
    label: ArrayLike, prediction: ArrayLike, labels: Sequence[str]
) -> dict[str, Any]:
    """Accuracy, weighted F1, macro F1, and precision, recall, F1 and support of each class.

    `label` and `prediction` are [N] indices into `labels`, N >= 1. The result has the keys
    `accuracy`, `weighted_f1` (F1 of each class weighted by its support), `macro_f1` (their mean
    over the classes that are a label or a prediction, as scikit-learn's) and `per_class`, a dict
    from label to `precision`, `recall`, `f1` (0 where undefined) and `support`. Raises ValueError
    as `confusion_matrix` does, and when there are no utterances.
    """
    confusion = confusion_matrix(label, prediction, len(labels))
    total = confusion.sum()
    if not total:
        raise ValueError("no utterances; metrics need at least one")
    hits, support, predicted = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    precision, recall = _ratio(hits, predicted), _ratio(hits, support)
    f1 = _ratio(2 * hits, support + predicted)
    return {
        "accuracy": float(hits.sum() / total),
        "weighted_f1": float((f1 * support).sum() / total),
        "macro_f1": float(f1[support + predicted > 0].mean()),
        "per_class": {
            name: {
                "precision": float(precision[i]),
                "recall": float(recall[i]),
                "f1": float(f1[i]),
                "support": int(support[i]),
            }
            for i, name in enumerate(labels)
        },
    }


def _classes(name: str, values: ArrayLike) -> NDArray[np.int64]:
    array = np.asarray(values)
    if array.ndim != 1 or (array.size and not np.issubdtype(array.dtype, np.integer)):
        raise ValueError(
            f"{name} is {array.dtype} {list(array.shape)}; pass a list of class numbers"
        )
    return array.astype(np.int64)


def _ratio(numerator: NDArray[np.int64], denominator: NDArray[np.int64]) -> NDArray[np.float64]:
    return numerator / np.maximum(denominator, 1)


@dataclass(frozen=True)
class Report:
    """One epoch's metrics: `train/loss`, `dev/loss`, `dev/accuracy`, `dev/weighted_f1`,
    `dev/macro_f1` and `dev/f1/<label>`. Test is never among them."""

    epoch: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class Scores:
    """What is shown of one split: accuracy, weighted F1, the F1 of each class by its label, and
    macro F1. None is a number that is not known or was not finite."""

    accuracy: float | None
    weighted_f1: float | None
    per_class: dict[str, float | None] = field(default_factory=dict)
    macro_f1: float | None = None

    @classmethod
    def of_split(cls, metrics: Mapping[str, Any]) -> Self:
        """The scores in what `classification_metrics` gave."""
        per_class = {label: entry["f1"] for label, entry in metrics["per_class"].items()}
        return cls(metrics["accuracy"], metrics["weighted_f1"], per_class, metrics["macro_f1"])

    @classmethod
    def of_dev(cls, metrics: Mapping[str, float | None]) -> Self:
        """The scores in a report's metrics."""
        prefix = "dev/f1/"
        per_class = {
            name.removeprefix(prefix): value
            for name, value in metrics.items()
            if name.startswith(prefix)
        }
        overall = {name: metrics.get(f"dev/{name}") for name in OVERALL}
        return cls(per_class=per_class, **overall)

    def to_json(self) -> dict[str, Any]:
        """The scores as a JSON object."""
        return asdict(self)
