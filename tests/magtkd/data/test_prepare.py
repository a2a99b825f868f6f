from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magtkd.config import DataConfig, SyntheticConfig
from magtkd.data import (
    Metadata,
    feature_matrix,
    make_corpus,
    make_synthetic,
    prepare,
    read_metadata,
    read_path,
)
from magtkd.errors import DataError

MakeTable = Callable[..., pa.Table]
WITHOUT_DEV = make_synthetic(SyntheticConfig(num_dialogues=97))
WITHOUT_DEV = WITHOUT_DEV.filter(pc.not_equal(WITHOUT_DEV["split"], "dev"))


def _train(table: pa.Table) -> pa.Table:
    return table.filter(pc.equal(table["split"], "train"))


def test_columns_and_metadata(make_table: MakeTable) -> None:
    table = prepare(make_corpus(make_table(start=[0.0] * 16), "source"), DataConfig(), seed=0)
    assert table.column_names == [
        *("split", "dialogue_id", "utterance_id", "speaker", "text"),
        *("label", "speaker_index", "text_features"),
    ]
    types = [table.schema.field(name).type for name in ("utterance_id", "label", "speaker_index")]
    assert types == [pa.int32()] * 3
    known = read_metadata(table)
    assert known == Metadata(("anger", "joy"), 2, ("text",), {"text": 7}, known.scales)
    assert known.scales is not None
    assert [len(one) for one in known.scales["text"]] == [7, 7]
    assert table["label"].to_pylist()[:3] == [1, 0, 1]


def test_text_without_features_is_a_modality_and_the_reverse(make_table: MakeTable) -> None:
    features = [[float(index), 0.5] for index in range(16)]
    only_text = make_table(text_features=None, video_features=features)
    metadata = read_metadata(prepare(make_corpus(only_text, "x"), DataConfig(), 0))
    assert (metadata.modalities, metadata.features) == (("text", "video"), {"video": 2})
    no_text = make_table(text=[""] * 16, text_features=None, audio_features=features)
    metadata = read_metadata(prepare(make_corpus(no_text, "x"), DataConfig(), 0))
    assert (metadata.modalities, metadata.features) == (("audio",), {"audio": 2})


def test_features_have_mean_0_and_deviation_1_on_train() -> None:
    table = make_synthetic(SyntheticConfig())
    scaled = np.asarray(feature_matrix(table, "audio")) * 1e3 - 1e4
    scaled[:, 5] = 0.1
    table = table.set_column(
        table.column_names.index("audio_features"),
        "audio_features",
        pa.FixedSizeListArray.from_arrays(pa.array(scaled.ravel()), scaled.shape[1]),
    )
    prepared = prepare(make_corpus(table, "source"), DataConfig(), 0)
    values = feature_matrix(_train(prepared), "audio")
    assert values.dtype == np.float32
    np.testing.assert_allclose(values.mean(axis=0), 0.0, atol=1e-5)
    np.testing.assert_allclose(np.delete(values, 5, axis=1).std(axis=0), 1.0, atol=1e-5)
    assert (feature_matrix(prepared, "audio")[:, 5] == 0).all()


def test_columns_constant_on_train_are_0_in_every_split(make_table: MakeTable) -> None:
    features = [[3.0, float(index)] for index in range(9)] + [[1e30, 1e-30]] * 7
    prepared = prepare(make_corpus(make_table(audio_features=features), "x"), DataConfig(), 0)
    values = feature_matrix(prepared, "audio")
    assert (values[:, 0] == 0).all()
    assert np.isfinite(values).all()


@settings(max_examples=25, deadline=None)
@given(scale=st.floats(1e-38, 1e38), offset=st.floats(-1e30, 1e30))
def test_prepared_features_are_always_finite(scale: float, offset: float) -> None:
    table = make_synthetic(SyntheticConfig(num_dialogues=5, mean_length=3, audio_dim=2))
    values = feature_matrix(table, "audio").astype(np.float64) * scale / 10 + offset
    column = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), 2)
    index = table.column_names.index("audio_features")
    corpus = make_corpus(table.set_column(index, "audio_features", column), "source")
    prepared = feature_matrix(prepare(corpus, DataConfig(), 0), "audio")
    assert np.isfinite(prepared).all()
    assert np.abs(prepared).max() < 1e7


def test_speakers_are_numbered_by_first_turn(make_table: MakeTable) -> None:
    speakers = ["b", "a", "b", "c", "a", "z", *"cca", *"ab", *"yxy", *"bb"]
    prepared = prepare(make_corpus(make_table(speaker=speakers), "x"), DataConfig(), 0)
    expected = [0, 1, 0, 2, 1, 0, 0, 0, 1, 0, 1, 0, 1, 0, 0, 0]
    assert prepared["speaker_index"].to_pylist() == expected
    assert read_metadata(prepared).num_speakers == 3


def test_speakers_are_numbered_by_name(make_table: MakeTable) -> None:
    speakers = ["b", "a", "b", "c", "a", "z", *"cca", *"ab", *"yxy", *"bb"]
    config = DataConfig(speakers="name")
    prepared = prepare(make_corpus(make_table(speaker=speakers), "x"), config, 0)
    expected = [1, 0, 1, 2, 0, 3, 2, 2, 0, 0, 1, 4, 4, 4, 1, 1]
    assert prepared["speaker_index"].to_pylist() == expected
    assert read_metadata(prepared).num_speakers == 5


def test_speakers_have_their_published_numbers(make_table: MakeTable) -> None:
    speakers = ["S3", "S1", "S12", "M", "F", "other", *["Ses01_M", "Ses05_F"] * 5]
    config = DataConfig(speakers="published")
    prepared = prepare(make_corpus(make_table(speaker=speakers), "x"), config, 0)
    named = zip(*(prepared[name].to_pylist() for name in ("speaker", "speaker_index")), strict=True)
    expected = {"S3": 2, "S1": 0, "S12": 11, "M": 0, "F": 1, "other": 0}
    assert dict(named) == expected | {"Ses01_M": 0, "Ses05_F": 1}
    assert read_metadata(prepared).num_speakers == 12


@pytest.mark.parametrize(
    "name", ["Monica", "S0", "S01", "S-1", "S٣", "S100000", "Ses01_X", "s1", ""]
)
def test_names_without_a_published_number_are_told(make_table: MakeTable, name: str) -> None:
    corpus = make_corpus(make_table(speaker=["S1"] * 15 + [name]), "here")
    message = (
        rf"here: data\.speakers is published, but speaker '{name}' has no published number "
        r"\(1 of 2 have none\): .* set data\.speakers=conversation or data\.speakers=name$"
    )
    with pytest.raises(DataError, match=message):
        prepare(corpus, DataConfig(speakers="published"), 0)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), fraction=st.floats(0.01, 0.9))
def test_dev_is_carved_by_conversation(seed: int, fraction: float) -> None:
    corpus = make_corpus(WITHOUT_DEV, "source")
    config = DataConfig(dev_fraction=fraction)
    table = prepare(corpus, config, seed)
    assert table.equals(prepare(corpus, config, seed))
    pairs = table.group_by(["dialogue_id", "split"]).aggregate([])
    assert len(pairs) == pc.count_distinct(corpus.table["dialogue_id"]).as_py()
    in_train = pc.count_distinct(_train(corpus.table)["dialogue_id"]).as_py()
    num_dev = pc.sum(pc.equal(pairs["split"], "dev")).as_py()
    assert num_dev == max(1, round(fraction * in_train))
    test = corpus.table.filter(pc.equal(corpus.table["split"], "test"))["dialogue_id"]
    assert table.filter(pc.equal(table["split"], "test"))["dialogue_id"].equals(test)
    assert set(_train(table)["label"].to_pylist()) == set(range(len(corpus.labels)))


def test_dev_depends_on_the_seed_and_not_on_the_order_of_rows() -> None:
    order = np.random.default_rng(5).permutation(WITHOUT_DEV.num_rows)
    corpus = make_corpus(WITHOUT_DEV, "source")
    shuffled = make_corpus(WITHOUT_DEV.take(pa.array(order)), "source")
    table = prepare(corpus, DataConfig(), 1)
    assert table.equals(prepare(shuffled, DataConfig(), 1))
    assert not table["split"].equals(prepare(corpus, DataConfig(), 2)["split"])


def test_dev_has_the_shares_of_labels_that_train_has() -> None:
    table = make_synthetic(SyntheticConfig(num_dialogues=400, mean_length=11, num_emotions=7))
    table = table.filter(pc.not_equal(table["split"], "dev"))
    prepared = prepare(make_corpus(table, "source"), DataConfig(), 0)
    counts = [
        np.bincount(prepared.filter(pc.equal(prepared["split"], split))["label"].to_numpy())
        for split in ("train", "dev")
    ]
    shares = [count / count.sum() for count in counts]
    np.testing.assert_allclose(shares[1], shares[0], atol=0.01)


def test_train_that_can_spare_nothing_is_refused(make_table: MakeTable) -> None:
    table = make_table()
    single = table.filter(pc.is_in(table["dialogue_id"], value_set=pa.array(["train0", "test0"])))
    with pytest.raises(DataError, match=r"^mine: has no dev split, and its 1 train conversations"):
        prepare(make_corpus(single, "mine"), DataConfig(), 0)


def test_mosi(data_folder: Path) -> None:
    corpus = read_path(data_folder / "mosi" / "mosi.parquet")
    prepared = prepare(corpus, DataConfig(), 0)
    metadata = read_metadata(prepared)
    assert metadata.features == {"text": 100, "audio": 73, "video": 100}
    assert (metadata.labels, metadata.num_speakers) == (("negative", "positive"), 1)
    for modality in metadata.features:
        deviation = feature_matrix(_train(prepared), modality).std(axis=0)
        assert np.isclose(deviation[deviation > 0], 1.0, atol=1e-4).all()
    without_dev = corpus.table.filter(pc.not_equal(corpus.table["split"], "dev"))
    carved = prepare(make_corpus(without_dev, "mosi"), DataConfig(), 0)
    dev = carved.filter(pc.equal(carved["split"], "dev"))
    assert pc.count_distinct(dev["dialogue_id"]).as_py() == 6
    assert np.mean(dev["label"].to_numpy()) == pytest.approx(709 / 1447, abs=0.05)
