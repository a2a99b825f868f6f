from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from magtkd.config import DataConfig, SyntheticConfig
from magtkd.data import (
    SPLITS,
    feature_matrix,
    feature_widths,
    make_corpus,
    make_synthetic,
    prepare,
    read_metadata,
    read_path,
)
from magtkd.data.columns import NO_LABEL
from magtkd.data.conversations import Batch, Conversations

MakeTable = Callable[..., pa.Table]
CORPUS = make_corpus(make_synthetic(SyntheticConfig(num_dialogues=61, mean_length=7)), "synthetic")
TABLE = prepare(CORPUS, DataConfig(), 0)
FEATURES = {name: feature_matrix(TABLE, name) for name in feature_widths(TABLE)}
CONVERSATIONS = Conversations(TABLE, FEATURES)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _same(one: Batch, other: Batch) -> bool:
    names = ("mask", "speaker", "label", "row")
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in names) and all(
        torch.equal(value, other.features[name]) for name, value in one.features.items()
    )


def _padding(batches: list[Batch]) -> float:
    return 1 - sum(int(b.mask.sum()) for b in batches) / sum(b.mask.numel() for b in batches)


def test_a_batch_holds_what_the_table_says(make_table: MakeTable) -> None:
    table = prepare(make_corpus(make_table(), "source"), DataConfig(), 0)
    features = {"text": feature_matrix(table, "text")}
    (batch,) = Conversations(table, features).batches("test", 5, None)
    assert batch.row.tolist() == [[14, 15, -1], [11, 12, 13]]
    assert batch.mask.tolist() == [[True, True, False], [True, True, True]]
    assert batch.label.tolist() == [[1, 0, NO_LABEL], [0, 1, 0]]
    assert batch.speaker.tolist() == [[0, 1, 2], [0, 1, 0]]
    assert batch.features["text"].shape == (2, 3, 7)
    assert batch.features["text"][0, 2].eq(0).all()
    np.testing.assert_array_equal(batch.features["text"][1].numpy(), features["text"][11:14])


@settings(max_examples=25, deadline=None)
@given(
    split=st.sampled_from(SPLITS),
    batch_size=st.integers(1, 70),
    seed=st.none() | st.integers(0, 1000),
)
def test_every_utterance_comes_exactly_once(split: str, batch_size: int, seed: int | None) -> None:
    generator = None if seed is None else _generator(seed)
    batches = list(CONVERSATIONS.batches(split, batch_size, generator))
    assert len(batches) == -(-CONVERSATIONS.num_conversations(split) // batch_size)
    rows = torch.cat([batch.row[batch.mask] for batch in batches])
    expected = np.flatnonzero(np.array(TABLE["split"].to_pylist()) == split)
    assert sorted(rows.tolist()) == expected.tolist()
    assert sum(len(batch.row) for batch in batches) == CONVERSATIONS.num_conversations(split)
    assert len(rows) == CONVERSATIONS.num_utterances(split)


@settings(max_examples=25, deadline=None)
@given(batch_size=st.integers(1, 70), seed=st.integers(0, 1000))
def test_batches_are_consistent(batch_size: int, seed: int) -> None:
    dialogues = np.array(TABLE["dialogue_id"].to_pylist())
    for batch in CONVERSATIONS.batches("train", batch_size, _generator(seed)):
        assert batch.mask.any(dim=0).all()
        assert torch.equal(batch.mask, batch.row >= 0)
        assert torch.equal(batch.mask, batch.label != NO_LABEL)
        assert torch.equal(batch.mask, batch.speaker < CONVERSATIONS.num_speakers)
        row = batch.row[batch.mask].numpy()
        np.testing.assert_array_equal(
            batch.label[batch.mask].numpy(), TABLE["label"].to_numpy()[row]
        )
        for name, value in batch.features.items():
            np.testing.assert_array_equal(value[batch.mask].numpy(), FEATURES[name][row])
            assert not value[~batch.mask].any()
        for rows in batch.row:
            present = rows[rows >= 0].numpy()
            assert len(set(dialogues[present])) == 1
            assert (np.diff(TABLE["utterance_id"].to_numpy()[present]) > 0).all()


def test_generator_shuffles_and_repeats() -> None:
    one, same, other = (
        list(CONVERSATIONS.batches("train", 5, _generator(seed))) for seed in (3, 3, 4)
    )
    assert all(map(_same, one, same))
    assert [b.row.tolist() for b in one] != [b.row.tolist() for b in other]
    # The conversations that share a batch change too, not only the order of batches.
    groups = [
        {frozenset(batch.row[:, 0].tolist()) for batch in batches} for batches in (one, other)
    ]
    assert groups[0] != groups[1]
    fixed = [list(CONVERSATIONS.batches("train", 5, None)) for _ in range(2)]
    assert all(map(_same, *fixed))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000))
def test_batches_do_not_depend_on_the_order_of_rows(seed: int) -> None:
    order = np.random.default_rng(seed).permutation(CORPUS.table.num_rows)
    corpus = make_corpus(CORPUS.table.take(pa.array(order)), "synthetic")
    table = prepare(corpus, DataConfig(), 0)
    other = Conversations(table, {name: feature_matrix(table, name) for name in FEATURES})
    batches = CONVERSATIONS.batches("train", 7, _generator(seed))
    assert all(map(_same, batches, other.batches("train", 7, _generator(seed))))


def test_an_unsorted_table_gives_the_same_conversations() -> None:
    order = np.random.default_rng(2).permutation(TABLE.num_rows)
    other = Conversations(
        TABLE.take(pa.array(order)), {name: value[order] for name, value in FEATURES.items()}
    )
    pairs = zip(CONVERSATIONS.batches("dev", 3, None), other.batches("dev", 3, None), strict=True)
    for one, same in pairs:
        assert torch.equal(one.features["text"], same.features["text"])
        assert torch.equal(one.label, same.label)


def test_features_may_be_replaced_and_are_not_copied() -> None:
    hidden = np.random.default_rng(0).standard_normal((TABLE.num_rows, 11)).astype(np.float32)
    hidden.flags.writeable = False
    conversations = Conversations(TABLE, {"audio": hidden})
    assert np.shares_memory(conversations.features["audio"], hidden)
    batch = next(conversations.batches("train", 3, None))
    assert batch.features["audio"].shape[2] == 11
    assert list(batch.features) == ["audio"]


def test_little_is_padding_with_lengths_like_meld() -> None:
    config = SyntheticConfig(num_dialogues=1433, mean_length=9.6, text_dim=2)
    table = prepare(make_corpus(make_synthetic(config), "synthetic"), DataConfig(), 0)
    conversations = Conversations(table, {})
    unsorted = conversations._lengths["train"][:992].reshape(-1, 16)
    without = 1 - unsorted.sum() / (unsorted.max(axis=1) * 16).sum()
    shuffled = _padding(list(conversations.batches("train", 16, _generator(0))))
    fixed = _padding(list(conversations.batches("train", 16, None)))
    assert fixed < 0.02
    assert shuffled < 0.1
    assert without > 0.3


def test_missing_split_has_no_batches(make_table: MakeTable) -> None:
    table = prepare(make_corpus(make_table().slice(0, 11), "source"), DataConfig(), 0)
    conversations = Conversations(table, {})
    assert list(conversations.batches("test", 3, _generator(0))) == []
    assert (conversations.num_conversations("test"), conversations.num_utterances("test")) == (0, 0)
    assert sorted(conversations.labels("train").tolist()) == [0] * 4 + [1] * 5


def test_features_of_another_table_are_refused() -> None:
    with pytest.raises(AssertionError, match="text: 3 rows, not the table's"):
        Conversations(TABLE, {"text": np.zeros((3, 2), np.float32)})


def test_batch_moves_to_a_device() -> None:
    batch = next(CONVERSATIONS.batches("train", 3, None))
    assert batch.to("cpu") is batch
    moved = batch.to("meta")
    assert {moved.mask.device.type, moved.features["video"].device.type} == {"meta"}


@pytest.mark.parametrize("place", ["mosi/mosi.parquet", "meld"])
def test_real_data(data_folder: Path, place: str) -> None:
    table = prepare(read_path(data_folder / place), DataConfig(), 0)
    names = read_metadata(table).features
    conversations = Conversations(table, {name: feature_matrix(table, name) for name in names})
    rows = [
        batch.row[batch.mask]
        for split in SPLITS
        for batch in conversations.batches(split, 16, _generator(0))
    ]
    assert sorted(torch.cat(rows).tolist()) == list(range(table.num_rows))
