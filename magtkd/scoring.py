"""The scores of a split, from the artifacts of a finished chain. Imports no torch."""

from __future__ import annotations

import pyarrow as pa

from magtkd.data import list_matrix, read_metadata
from magtkd.errors import DataError
from magtkd.metrics import Scores, classification_metrics, with_label

__all__ = ["score_split"]


def score_split(data: pa.Table, predicted: pa.Table, split: str) -> Scores:
    """The scores of one split of a fusion stage's table.

    Args:
        data: the data stage's table, with each utterance's split and label.
        predicted: the fusion stage's table, its rows in the same order, with `logits`.
        split: `train`, `dev` or `test`.

    Raises:
        DataError: the table has no utterance with a label in this split.
    """
    wanted = data["split"].to_numpy() == split
    if not wanted.any():
        raise DataError(f"the table has no {split} split; nothing can be scored on it")
    prediction = list_matrix(predicted, "logits").argmax(axis=1)
    label, prediction = with_label(data["label"].to_numpy()[wanted], prediction[wanted])
    if not len(label):
        raise DataError(f"no utterance of {split} has a label; nothing can be scored on it")
    labels = read_metadata(data).labels
    return Scores.of_split(classification_metrics(label, prediction, labels))
