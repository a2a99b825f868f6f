"""The scores of a split, from the artifacts of a finished chain, and which there can be. Imports no
torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from magtkd.config import nearest
from magtkd.data import NO_LABEL, list_matrix, read_metadata
from magtkd.errors import DataError, shorten
from magtkd.metrics import Scores, classification_metrics

__all__ = ["Predictions", "check_label", "score_split", "split_predictions"]


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """What a trained model predicts for the utterances of a split that have a label."""

    labels: tuple[str, ...]
    """The names of the classes."""
    conversation: NDArray[Any]
    """The conversation of each utterance, [N]."""
    utterance: NDArray[Any]
    """Its place there, [N]."""
    label: NDArray[np.int64]
    """Its class, [N]."""
    prediction: NDArray[np.int64]
    """The predicted class, [N]."""


def split_predictions(data: pa.Table, predicted: pa.Table, split: str) -> Predictions:
    """The predictions of a fusion stage for one split; see `score_split`."""
    wanted = data["split"].to_numpy() == split
    if not wanted.any():
        raise DataError(f"the table has no {split} split; nothing can be scored on it")
    rows = np.flatnonzero(wanted & (data["label"].to_numpy() != NO_LABEL))
    if not len(rows):
        raise DataError(f"no utterance of {split} has a label; nothing can be scored on it")
    return Predictions(
        labels=tuple(read_metadata(data).labels),
        conversation=data["dialogue_id"].to_numpy()[rows].astype(str),
        utterance=data["utterance_id"].to_numpy()[rows],
        label=data["label"].to_numpy()[rows].astype(np.int64),
        prediction=list_matrix(predicted, "logits")[rows].argmax(axis=1),
    )


def score_split(data: pa.Table, predicted: pa.Table, split: str) -> Scores:
    """The scores of one split of a fusion stage's table.

    Args:
        data: the data stage's table, with each utterance's split and label.
        predicted: the fusion stage's table, its rows in the same order, with `logits`.
        split: `train`, `dev` or `test`.

    Raises:
        DataError: the table has no utterance with a label in this split.
    """
    found = split_predictions(data, predicted, split)
    return Scores.of_split(classification_metrics(found.label, found.prediction, found.labels))


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
