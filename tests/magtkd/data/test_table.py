from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magtkd.config import SyntheticConfig
from magtkd.data import (
    feature_matrix,
    fingerprint,
    list_matrix,
    make_corpus,
    make_synthetic,
    validate_table,
)
from magtkd.data.columns import features_column
from magtkd.errors import DataError

MakeTable = Callable[..., pa.Table]
NUM_ROWS = 16
SYNTHETIC = validate_table(make_synthetic(SyntheticConfig(num_dialogues=11, mean_length=5)), "x")


def _replace(table: pa.Table, name: str, row: int, value: Any) -> list[Any]:
    values = table[name].to_pylist()
    values[row] = value
    return list(values)


def test_sound_table_keeps_its_columns_and_is_sorted(make_table: MakeTable) -> None:
    table = make_table()
    shuffled = table.take(pa.array(np.random.default_rng(3).permutation(NUM_ROWS)))
    assert validate_table(shuffled, "source").equals(validate_table(table, "source"))
    assert validate_table(table, "source")["split"].to_pylist() == table["split"].to_pylist()


def test_lossless_types_are_read(make_table: MakeTable) -> None:
    table = make_table()
    features = table["text_features"].to_pylist()
    other = make_table(
        split=table["split"].combine_chunks().dictionary_encode(),
        utterance_id=table["utterance_id"].cast(pa.int64()),
        speaker=table["speaker"].cast(pa.large_string()),
        text_features=pa.array(features, pa.list_(pa.float64())),
    )
    other = pa.concat_tables([other.slice(0, 5), other.slice(5)])
    assert validate_table(other, "source").equals(validate_table(table, "source"))
    fixed = make_table(text_features=pa.array(features, pa.list_(pa.float64(), 7)))
    assert validate_table(fixed.slice(2), "x").equals(validate_table(table.slice(2), "x"))


def test_numbers_serve_as_names(make_table: MakeTable) -> None:
    table = make_table(speaker=pa.array(range(NUM_ROWS)), text=pa.nulls(NUM_ROWS))
    valid = validate_table(table, "source")
    assert set(valid["speaker"].to_pylist()) == {str(index) for index in range(NUM_ROWS)}
    assert set(valid["text"].to_pylist()) == {""}


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"label": None}, r"^source: lacks the column label; it has split, .*; rename or add"),
        ({"label": None, "speaker": None}, "lacks the columns speaker, label"),
        ({"utterance_id": [0.5] * NUM_ROWS}, "utterance_id: its type is double; cast it to int32"),
        ({"utterance_id": [2**40] * NUM_ROWS}, "utterance_id: .*; keep to int32"),
        ({"text": [True] * NUM_ROWS}, "column text: its type is bool; cast it to string"),
        ({"text_features": ["x"] * NUM_ROWS}, "text_features: its type is string; cast it to a"),
        ({"text_features": [[1]] * NUM_ROWS}, r"its type is list<.*int64>; cast it to a fixed"),
        (
            {"audio_features": [[1.0, 2.0]] * 9 + [[3.0]] * 7},
            "audio_features: 2 values in the first row but 1 in row 10",
        ),
        ({"audio_features": [[]] * NUM_ROWS}, "audio_features: its type is list<.*null>"),
        (
            {"audio_features": pa.array([None] * NUM_ROWS, pa.list_(pa.float32()))},
            "audio_features: it is empty in every row; leave it out",
        ),
        (
            {"audio_features": pa.array([[]] * NUM_ROWS, pa.list_(pa.float32()))},
            "audio_features: its lists have no values; leave it out",
        ),
        ({"text": None, "text_features": None}, "lacks the column text"),
        ({"text": [" "] * NUM_ROWS, "text_features": None}, "has neither text nor features"),
    ],
)
def test_wrong_columns_are_refused(
    make_table: MakeTable, replaced: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        validate_table(make_table(**replaced), "source")


@pytest.mark.parametrize(
    ("name", "row", "value", "message"),
    [
        ("split", 4, "valid", "column split: 'valid' is unknown; rename it to one of train"),
        ("split", 0, "dev", "dialogue train0 is in train and dev .1 such dialogues.*train/train0"),
        (
            "utterance_id",
            1,
            0,
            "train, dialogue train0, utterance 0 is there more than once .1 dup",
        ),
        ("speaker", 6, None, "column speaker: 1 of 16 values are missing, first in row 7"),
        (
            "label",
            13,
            "awe",
            "'awe' at split test, dialogue test0, utterance 2 does not occur in train .1 such",
        ),
    ],
)
def test_wrong_values_are_refused(
    make_table: MakeTable, name: str, row: int, value: Any, message: str
) -> None:
    table = make_table()
    changed = pa.array(_replace(table, name, row, value), table.schema.field(name).type)
    with pytest.raises(DataError, match=message):
        validate_table(make_table(**{name: changed}), "source")


def test_empty_table_and_table_without_train_are_refused(make_table: MakeTable) -> None:
    with pytest.raises(DataError, match=r"^source: the table is empty"):
        validate_table(make_table().slice(0, 0), "source")
    with pytest.raises(DataError, match="has no train split, only dev, test; add one"):
        validate_table(make_table().slice(9), "source")


@pytest.mark.parametrize("value", [None, np.nan, np.inf])
def test_missing_and_infinite_features_say_where_and_how_many(
    make_table: MakeTable, value: float | None
) -> None:
    vectors: list[Any] = [[0.0, 1.0, 2.0] for _ in range(NUM_ROWS)]
    vectors[3] = [0.0, value, 1.0]
    vectors[5] = None
    table = make_table(audio_features=pa.array(vectors, pa.list_(pa.float32(), 3)))
    where = "split train, dialogue train0, utterance 3"
    with pytest.raises(DataError, match=rf"audio_features of 2 utterances \(first: {where}\)"):
        validate_table(table, "source")


def test_float64_beyond_float32_is_not_finite(make_table: MakeTable) -> None:
    with pytest.raises(DataError, match="non-finite values in video_features of 16 utterances"):
        validate_table(make_table(video_features=[[1e300]] * NUM_ROWS), "source")


def test_every_error_is_one_line(make_table: MakeTable) -> None:
    with pytest.raises(DataError, match=r"\A[^\n]*\Z"):
        validate_table(make_table(utterance_id=[2**40] * NUM_ROWS), "source")


def test_corpus_has_labels_of_train_and_warnings(make_table: MakeTable) -> None:
    corpus = make_corpus(make_table(text_feature=[0] * NUM_ROWS).slice(0, 9), "source", ["note"])
    assert corpus.labels == ("anger", "joy")
    assert corpus.warnings[0] == "note"
    assert "'text_feature' is not in the schema and is ignored" in corpus.warnings[1]
    assert corpus.warnings[2].startswith("no dev split")
    assert corpus.warnings[3].startswith("no test split")


def test_constant_features_empty_texts_and_one_label_are_warned_of(make_table: MakeTable) -> None:
    table = make_table(
        label=["joy"] * NUM_ROWS,
        text=[""] * 3 + ["some"] * 13,
        audio_features=[[1.0, float(index)] for index in range(NUM_ROWS)],
    )
    warnings = make_corpus(table, "source").warnings
    assert any("single label, 'joy'" in warning for warning in warnings)
    assert "3 of 16 utterances have no text" in warnings
    assert "audio_features: 1 of 2 columns are constant on train" in warnings


@settings(max_examples=25, deadline=None)
@given(order=st.permutations(range(SYNTHETIC.num_rows)), cut=st.integers(1, 20))
def test_fingerprint_does_not_see_rows_order_chunks_or_types(order: list[int], cut: int) -> None:
    table = SYNTHETIC.take(pa.array(order))
    table = pa.concat_tables([table.slice(0, cut), table.slice(cut)])
    table = table.select(sorted(table.column_names))
    table = table.set_column(
        table.column_names.index("text"), "text", table["text"].cast(pa.large_string())
    )
    assert fingerprint(validate_table(table, "x")) == fingerprint(SYNTHETIC)


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(["speaker", "text", "label", "audio_features", "utterance_id"]),
    row=st.integers(0, SYNTHETIC.num_rows - 1),
)
def test_fingerprint_sees_every_value(name: str, row: int) -> None:
    value = SYNTHETIC[name][row].as_py()
    if isinstance(value, list):
        value = [*value[:-1], np.nextafter(np.float32(value[-1]), np.float32(9))]
    else:
        value = value + 1000 if isinstance(value, int) else value + " "
    column = pa.array(_replace(SYNTHETIC, name, row, value), SYNTHETIC.schema.field(name).type)
    index = SYNTHETIC.column_names.index(name)
    assert fingerprint(SYNTHETIC.set_column(index, name, column)) != fingerprint(SYNTHETIC)


def test_fingerprint_sees_where_a_text_ends_and_what_is_missing(make_table: MakeTable) -> None:
    moved = make_table(text=["ab", "c"] * 8), make_table(text=["a", "bc"] * 8)
    missing = make_table(start=[None] + [1.0] * 15), make_table(start=[0.0] + [1.0] * 15)
    for one, other in (moved, missing):
        assert fingerprint(validate_table(one, "x")) != fingerprint(validate_table(other, "x"))


def test_feature_matrix_is_a_view(make_table: MakeTable) -> None:
    table = validate_table(make_table(), "source")
    view = feature_matrix(table, "text")
    assert view.shape == (NUM_ROWS, 7)
    assert np.shares_memory(view, feature_matrix(table, "text"))
    assert pc.list_value_length(table["text_features"])[0].as_py() == 7


def test_a_corpus_as_large_as_meld_validates_in_well_under_a_second() -> None:
    table = make_synthetic(SyntheticConfig(num_dialogues=1433, mean_length=9.6, audio_dim=300))
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        fingerprint(validate_table(table, "source"))
        seconds.append(time.perf_counter() - start)
    assert table.num_rows > 13_000
    assert min(seconds) < 0.5


def test_a_column_in_one_piece_is_read_without_a_copy() -> None:
    values = np.arange(35, dtype=np.float32).reshape(7, 5)
    table = pa.table({"logits": features_column(values)})
    assert np.shares_memory(list_matrix(table, "logits"), values)
    assert np.array_equal(list_matrix(pa.concat_tables([table, table]), "logits")[7:], values)


def test_texts_that_a_spreadsheet_changed_are_named(make_table: MakeTable) -> None:
    texts = ["#NAME?", "16-Nov", "Nov-16", "#REF!", *["No, #NAME? 16-Nov it is"] * 12]
    warnings = make_corpus(make_table(text=texts), "x").warnings
    (line,) = [line for line in warnings if "spreadsheet" in line]
    assert line.startswith("texts that a spreadsheet seems to have changed: ")
    assert all(text in line for text in texts[:4])
    assert "No," not in line
