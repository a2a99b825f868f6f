"""A model's outputs without training, and its metrics on dev.

Shapes: N utterances, H hidden_dim, C classes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from magtkd.data import SPLITS
from magtkd.metrics import OVERALL, classification_metrics, with_label
from magtkd.training.task import Task

__all__ = ["dev_metrics", "predict", "predict_table"]


def predict(
    task: Task[Any], splits: Sequence[str], precision: AbstractContextManager[Any] | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows [N] of the table, features [N, H] and logits [N, C] of all utterances of some splits.

    Args:
        task: the stage's task, whose model is set to evaluation.
        splits: the splits, in order.
        precision: an autocast of PyTorch; None for the precision of the weights.
    """
    task.model.eval()
    with torch.no_grad(), precision or contextlib.nullcontext():
        parts = [task.outputs(batch) for split in splits for batch in task.batches(split, None)]
    rows = torch.cat([part.row for part in parts]).cpu().numpy()
    features = torch.cat([part.features for part in parts]).float().cpu().numpy()
    logits = torch.cat([part.logits for part in parts]).float().cpu().numpy()
    return rows, features, logits


def predict_table(
    task: Task[Any], num_rows: int, precision: AbstractContextManager[Any] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Features [N, H] and logits [N, C] of all splits, by row of the table, which has `num_rows`
    rows; the other arguments are those of `predict`."""
    rows, features, logits = predict(task, SPLITS, precision)
    order = np.argsort(rows)
    assert np.array_equal(rows[order], np.arange(num_rows)), "each utterance once"
    return features[order], logits[order]


def dev_metrics(label: np.ndarray, logits: np.ndarray, labels: Sequence[str]) -> dict[str, float]:
    """What a report has of dev: loss, accuracy, weighted F1, macro F1, and the F1 of each class.

    Args:
        label: [N] the utterances' labels, as indices of `labels`; those without one are left out.
        logits: [N, C] their logits.
        labels: names of the classes.
    """
    label, logits = with_label(label, logits)
    loss = float(F.cross_entropy(torch.from_numpy(logits), torch.from_numpy(label).long()))
    scores = classification_metrics(label, logits.argmax(axis=1), labels)
    flat = {"dev/loss": loss}
    flat |= {f"dev/{name}": scores[name] for name in OVERALL}
    return flat | {f"dev/f1/{name}": entry["f1"] for name, entry in scores["per_class"].items()}
