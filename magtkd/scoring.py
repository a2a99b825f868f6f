"""The scores of a split, from the artifacts of a finished chain, and which there can be. Imports no
torch."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from magtkd.config import nearest
from magtkd.data import NO_LABEL, list_matrix, read_metadata
from magtkd.errors import DataError, shorten
from magtkd.metrics import Scores, classification_metrics, with_label

__all__ = ["check_label", "score_split"]


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


def check_label(place: str, label: str, data: pa.Table) -> None:
    """Check that dev has a label whose F1 is wanted: without one, the F1 is 0 whatever is trained.

    Args:
        place: what names the label, for the message.
        label: the label.
        data: the data stage's table.

    Raises:
        DataError: dev has no utterance of it.
    """
    names = read_metadata(data).labels
    found = pc.unique(data.filter(pc.equal(data["split"], "dev"))["label"]).to_pylist()
    labels = [names[index] for index in sorted(found) if index != NO_LABEL]
    if label in labels:
        return
    lacks = f"the table has no label {shorten(label)!r}{nearest(label, names)}"
    if label in names:
        lacks = f"dev has no utterance {label!r}, which makes its F1 0"
    raise DataError(f"{place}: {lacks}; dev has {', '.join(labels)}")
