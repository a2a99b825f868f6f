"""The files of a trial that people look at in MLflow: configuration, scores, predictions on dev."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable

import numpy as np

from magtkd.config import dump_yaml
from magtkd.data import list_matrix, read_metadata
from magtkd.metrics import classification_metrics, confusion_matrix, with_label
from magtkd.store import Store
from tune.config import SweepConfig
from tune.ledger import TrialState, TrialStatus

__all__ = ["files_of"]


def files_of(sweep: SweepConfig, store: Store) -> Callable[[TrialState], dict[str, str | bytes]]:
    """What gives the files of an ended trial, by name.

    Every trial has its `config.yaml`. A completed one has, of dev alone, `per_class.json`
    (precision, recall, F1 and support by label), `confusion_matrix.csv` (true labels down,
    predicted ones across) and `predictions.csv`.
    """

    def files(trial: TrialState) -> dict[str, str | bytes]:
        config = trial.candidate.config(sweep.base)
        found: dict[str, str | bytes] = {"config.yaml": dump_yaml(config)}
        if trial.state == TrialStatus.COMPLETED:
            found |= _dev_files(store, trial)
        return found

    return files


def _dev_files(store: Store, trial: TrialState) -> dict[str, str]:
    data = store.read("data", trial.stages["data"].key).table
    fusion = store.read("fusion", trial.stages["fusion"].key, weights=False).table
    is_dev = data["split"].to_numpy() == "dev"
    labels = read_metadata(data).labels
    label = data["label"].to_numpy()[is_dev]
    prediction = list_matrix(fusion, "logits")[is_dev].argmax(axis=1)
    scored = with_label(label, prediction)
    scores = classification_metrics(*scored, labels)
    counts = confusion_matrix(*scored, len(labels))
    names = np.array([*labels, ""])  # of an utterance without a label, which has the last number
    label = np.where(label < 0, len(labels), label)
    utterances = data.filter(is_dev).select(["dialogue_id", "utterance_id"]).to_pylist()
    return {
        "per_class.json": json.dumps(scores["per_class"], indent=2),
        "confusion_matrix.csv": _csv(
            ["true \\ predicted", *labels],
            [[name, *row] for name, row in zip(labels, counts.tolist(), strict=True)],
        ),
        "predictions.csv": _csv(
            ["dialogue_id", "utterance_id", "label", "prediction"],
            [
                [row["dialogue_id"], row["utterance_id"], true, predicted]
                for row, true, predicted in zip(
                    utterances, names[label], names[prediction], strict=True
                )
            ],
        ),
    }


def _csv(header: list[str], rows: list[list[object]]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return stream.getvalue()
