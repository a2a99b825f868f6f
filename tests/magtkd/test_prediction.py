"""New conversations through a chain that was trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from magtkd.config import Config, with_values
from magtkd.data import list_matrix, read_corpus
from magtkd.errors import DataError
from magtkd.pipeline import run_chain
from magtkd.prediction import Predictor
from magtkd.store import Artifact, Store

LABELS = ("split", "label")


def trained(config: Config, folder: Path) -> tuple[dict[str, Artifact], Store]:
    store = Store(str(folder / "store"))
    return run_chain(config, store, warn=lambda line: None), store


def of_test(config: Config) -> pa.Table:
    """The conversations of test, as if they were new."""
    table = read_corpus(config.data).table
    return table.filter(pc.equal(table["split"], "test")).drop_columns(LABELS)


def probabilities(predicted: pa.Table) -> np.ndarray:
    names = [name for name in predicted.column_names if name.startswith("probability/")]
    return np.stack([predicted[name].to_numpy() for name in names], axis=1)


def expected(artifacts: dict[str, Artifact]) -> np.ndarray:
    fusion = artifacts["fusion"].table
    rows = pc.equal(fusion["split"], "test").to_numpy()
    logits = list_matrix(fusion, "logits")[rows].astype(np.float64)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(odds / odds.sum(axis=1, keepdims=True))


SECTIONS: list[dict[str, Any]] = [
    {},
    {"fusion.class_weights": "balanced", "teacher.class_weights": "balanced"},
    {"fusion.model": "concat", "fusion.modalities": ["text", "video"]},
    {"fusion.inputs": "table", "data.standardise": False},
    {"data.speakers": "name", "audio.distill": None},
    {"teacher.encoder": "tiny", "teacher.prompt_length": 2, "teacher.context": 3},
]


@pytest.mark.parametrize("changes", SECTIONS, ids=lambda changes: ",".join(changes) or "default")
def test_test_as_new_conversations_gives_the_logits_of_training(
    tiny_config: Callable[..., Config], tmp_path: Path, changes: dict[str, Any]
) -> None:
    config = with_values(tiny_config(), changes)
    artifacts, store = trained(config, tmp_path)
    new = of_test(config)
    shuffled = new.take(np.random.default_rng(0).permutation(new.num_rows))
    predictor = Predictor(config, store, warn=pytest.fail)
    found = predictor.predict(shuffled)
    assert found["dialogue_id"].to_pylist() == new["dialogue_id"].to_pylist()
    assert found["utterance_id"].to_pylist() == new["utterance_id"].to_pylist()
    assert probabilities(found) == pytest.approx(expected(artifacts), abs=1e-6)
    chosen = probabilities(found).argmax(axis=1)
    assert found["emotion"].to_pylist() == [predictor.labels[one] for one in chosen]
    assert found["probability"].to_numpy() == pytest.approx(probabilities(found).max(axis=1))
    assert len(repr(predictor)) < 200


def test_clips_and_their_encoders(
    clip_config: Callable[..., Config], clip_corpus: Path, tmp_path: Path
) -> None:
    config = clip_config()
    artifacts, store = trained(config, tmp_path)
    new = of_test(config)
    found = Predictor(config, store).predict(new)
    assert probabilities(found) == pytest.approx(expected(artifacts), abs=1e-5)


def test_a_conversation_does_not_depend_on_the_others(
    tiny_config: Callable[..., Config], tmp_path: Path
) -> None:
    config = tiny_config()
    _, store = trained(config, tmp_path)
    new, predictor = of_test(config), Predictor(config, store)
    first = new["dialogue_id"][0].as_py()
    alone = predictor.predict(new.filter(pc.equal(new["dialogue_id"], first)))
    whole = predictor.predict(new)
    same = whole.filter(pc.equal(whole["dialogue_id"], first))
    assert probabilities(alone) == pytest.approx(probabilities(same), abs=1e-6)


def test_what_the_chain_has_not_seen_is_said(
    tiny_config: Callable[..., Config], tmp_path: Path
) -> None:
    config = with_values(tiny_config(), {"data.speakers": "name"})
    _, store = trained(config, tmp_path)
    new = of_test(config).drop_columns(["video_features"])
    names = pa.array([f"stranger {number % 2}" for number in range(new.num_rows)])
    new = new.set_column(new.column_names.index("speaker"), "speaker", names)
    lines: list[str] = []
    found = Predictor(config, store, warn=lines.append).predict(new, "calls.parquet")
    assert found.num_rows == new.num_rows
    assert np.isfinite(probabilities(found)).all()
    assert lines == [
        "calls.parquet: 2 speakers are not in train; they share one index",
        "calls.parquet: has no video_features; zeros, the mean of train, in their place",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.drop_columns(["speaker"]), r"t: lacks the column speaker; it has"),
        (lambda table: table.slice(0, 0), r"t: the table is empty"),
        (lambda table: pa.concat_tables([table, table]), r"is there more than once"),
        (
            lambda table: table.drop_columns(["audio_features"]).append_column(
                "audio_features", pa.array([[1.0, 2.0]] * table.num_rows)
            ),
            r"t: audio_features are 2 wide, and the chain was trained on 7",
        ),
    ],
)
def test_a_table_that_is_none(
    tiny_config: Callable[..., Config], tmp_path: Path, change: Any, message: str
) -> None:
    config = tiny_config()
    _, store = trained(config, tmp_path)
    with pytest.raises(DataError, match=message):
        Predictor(config, store).predict(change(of_test(config)), "t")


def test_a_chain_that_was_not_trained(tiny_config: Callable[..., Config], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data: \w+ is not in .*; train it with magtkd train"):
        Predictor(tiny_config(), Store(str(tmp_path)))
