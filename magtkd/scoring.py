"""The scores of a split, from the artifacts of a finished chain. Imports no torch."""

from __future__ import annotations

import pyarrow as pa

from magtkd.data import list_matrix, read_metadata
from magtkd.errors import DataError
from magtkd.metrics import Scores, classification_metrics

__all__ = ["score_split"]


def score_split(data: pa.Table, predicted: pa.Table, split: str) -> Scores:
    """The scores of one split of a fusion stage's table.

    Args:
        data: the data stage's table, with each utterance's split and label.
        predicted: the fusion stage's table, its rows in the same order, with `logits`.
        split: `train`, `dev` or `test`.

    Raises:
        DataError: the table has no utterance in this split.
    """
    wanted = data["split"].to_numpy() == split
    if not wanted.any():
        raise DataError(f"the table has no {split} split; nothing can be scored on it")
    prediction = list_matrix(predicted, "logits").argmax(axis=1)
    label = data["label"].to_numpy()
    labels = read_metadata(data).labels
    return Scores.of_split(classification_metrics(label[wanted], prediction[wanted], labels))
