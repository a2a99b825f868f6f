"""Utterances without a label are context: read, seen by the models, in no loss and no metric."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from magtkd.config import Config
from magtkd.data import NO_LABEL, list_matrix, make_corpus, prepare, read_metadata, write_parquet
from magtkd.data.describe import describe
from magtkd.errors import DataError
from magtkd.metrics import classification_metrics
from magtkd.pipeline import run_chain
from magtkd.scoring import score_split
from magtkd.store import Artifact, Store

MakeConfig = Callable[..., Config]
STAGES = ("teacher", "audio", "video", "fusion")


def without_labels(table: pa.Table, rows: np.ndarray) -> pa.Table:
    label = pc.if_else(pa.array(rows), pa.scalar(None, pa.string()), table["label"])
    return table.set_column(table.column_names.index("label"), "label", label)


def every_third(table: pa.Table, *splits: str) -> np.ndarray:
    """A third of the utterances of these splits."""
    is_there = np.isin(table["split"].to_pylist(), splits)
    return is_there & (np.cumsum(is_there) % 3 == 0)


@pytest.fixture
def run(tiny_config: MakeConfig, tmp_path: Path) -> Callable[..., dict[str, Artifact]]:
    def chain(table: pa.Table, values: dict[str, Any] | None = None) -> dict[str, Artifact]:
        name = make_corpus(table, "").fingerprint[:8]
        path = tmp_path / f"{name}.parquet"
        write_parquet(table, path)
        data = {"data.synthetic": None, "data.path": str(path), "data.standardise": False}
        return run_chain(tiny_config(data | (values or {})), Store(tmp_path / f"store-{name}"))

    return chain


def test_what_has_no_label_teaches_nothing(
    tiny_table: pa.Table, run: Callable[..., dict[str, Artifact]]
) -> None:
    """The stages that see one utterance at a time learn as if it were not there; so does fusion,
    where a whole conversation has no label."""
    rows = np.zeros(tiny_table.num_rows, bool)
    is_train = np.array(tiny_table["split"].to_pylist()) == "train"
    dialogues = np.array(tiny_table["dialogue_id"].to_pylist())
    rows[np.isin(dialogues, np.unique(dialogues[is_train])[::4])] = True
    values = {"teacher.class_weights": "balanced", "fusion.accumulation": 2}
    kept = run(without_labels(tiny_table, rows), values)
    dropped = run(tiny_table.filter(pa.array(~rows)), values)
    for stage in STAGES:
        # Not to the last bit: the batches of the prediction have other sizes.
        reports = [made[stage].metrics["reports"] for made in (kept, dropped)]
        for one, other in zip(*reports, strict=True):
            assert one["metrics"] == pytest.approx(other["metrics"], abs=1e-5)
    assert kept["fusion"].table.num_rows == tiny_table.num_rows  # and yet it is predicted


@pytest.mark.parametrize("model", ["magt", "sdt", "concat"])
def test_what_has_no_label_is_context(
    tiny_table: pa.Table, run: Callable[..., dict[str, Artifact]], model: str
) -> None:
    """Labels that are missing within conversations: fusion sees these utterances, and scores leave
    them out."""
    rows = every_third(tiny_table, "train", "dev", "test")
    made = run(without_labels(tiny_table, rows), {"fusion.model": model})
    data, fusion = made["data"].table, made["fusion"].table
    is_dev = data["split"].to_numpy() == "dev"
    label = data["label"].to_numpy()
    assert (label == NO_LABEL).sum() == rows.sum()
    wanted = is_dev & (label != NO_LABEL)
    prediction = list_matrix(fusion, "logits").argmax(axis=1)
    scores = classification_metrics(label[wanted], prediction[wanted], read_metadata(data).labels)
    assert made["fusion"].metrics["dev"] == scores
    assert sum(entry["support"] for entry in scores["per_class"].values()) == wanted.sum()
    chosen = made["fusion"].metrics["reports"][made["fusion"].metrics["epoch"] - 1]["metrics"]
    assert chosen["dev/macro_f1"] == pytest.approx(scores["macro_f1"])
    assert np.isfinite(list(chosen.values())).all()
    test = score_split(data, fusion, "test")
    assert test.accuracy is not None


def test_prompts_show_what_has_no_label(
    tiny_table: pa.Table, run: Callable[..., dict[str, Artifact]]
) -> None:
    rows = every_third(tiny_table, "train", "dev")
    values = {"teacher.encoder": "tiny", "teacher.epochs": 1, "fusion.epochs": 1}
    made = run(without_labels(tiny_table, rows), values)
    assert made["teacher"].table.num_rows == tiny_table.num_rows


def test_an_empty_label_is_a_missing_one_and_changes_the_fingerprint(tiny_table: pa.Table) -> None:
    rows = every_third(tiny_table, "train", "dev", "test")
    null = without_labels(tiny_table, rows)
    blank = null.set_column(
        null.column_names.index("label"), "label", pc.fill_null(null["label"], " ")
    )
    one, other = make_corpus(null, "x"), make_corpus(blank, "x")
    assert one.fingerprint == other.fingerprint != make_corpus(tiny_table, "x").fingerprint
    assert sum(describe(one)["unlabelled"].values()) == rows.sum()
    assert any(
        f"{rows.sum()} of {len(rows)} utterances have no label" in line for line in one.warnings
    )


def test_dev_is_carved_of_conversations_with_labels(
    tiny_table: pa.Table, tiny_config: MakeConfig
) -> None:
    without_dev = tiny_table.filter(pc.not_equal(tiny_table["split"], "dev"))
    dialogues = np.array(without_dev["dialogue_id"].to_pylist())
    is_train = np.array(without_dev["split"].to_pylist()) == "train"
    rows = np.isin(dialogues, np.unique(dialogues[is_train])[::2])
    corpus = make_corpus(without_labels(without_dev, rows), "x")
    for seed in range(5):
        data = prepare(corpus, tiny_config({"data.dev_fraction": 0.4}).data, seed)
        table = data.filter(pc.equal(data["split"], "dev"))
        assert NO_LABEL not in table["label"].to_pylist()


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("train", "none of the .* utterances of train has a label, .* nothing to learn by"),
        ("dev", "none of the .* utterances of dev has a label, .* drop the split"),
    ],
)
def test_a_split_without_any_label_is_refused(
    tiny_table: pa.Table, split: str, message: str
) -> None:
    rows = np.array(tiny_table["split"].to_pylist()) == split
    with pytest.raises(DataError, match=message):
        make_corpus(without_labels(tiny_table, rows), "x")


def test_a_test_without_any_label_has_nothing_to_reveal(
    tiny_table: pa.Table, tiny_config: MakeConfig
) -> None:
    rows = np.array(tiny_table["split"].to_pylist()) == "test"
    corpus = make_corpus(without_labels(tiny_table, rows), "x")
    assert "no utterance of test has a label; there will be nothing to reveal" in corpus.warnings
    data = prepare(corpus, tiny_config().data, 0)
    logits = pa.table(
        {
            "logits": pa.FixedSizeListArray.from_arrays(
                pa.array(np.zeros(2 * data.num_rows, np.float32)), 2
            )
        }
    )
    with pytest.raises(DataError, match="no utterance of test has a label; nothing can be scored"):
        score_split(data, logits, "test")
