import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from magtkd.encoders import TokenizedUtterances

lengths_ = st.lists(st.integers(1, 29), min_size=1, max_size=61)


def utterances(lengths: list[int]) -> TokenizedUtterances:
    return TokenizedUtterances([np.arange(2, length + 2) for length in lengths], pad_id=1)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_batch_is_padded_on_the_left() -> None:
    batch = utterances([3, 1, 2]).batch([1, 0])
    assert batch.row.tolist() == [1, 0]
    assert batch.input_ids.tolist() == [[1, 1, 2], [2, 3, 4]]
    assert batch.attention_mask.tolist() == [[0, 0, 1], [1, 1, 1]]


@given(lengths_, st.integers(1, 13), st.none() | st.integers(0, 2**31))
def test_every_row_comes_once(lengths: list[int], batch_size: int, seed: int | None) -> None:
    rows = range(0, len(lengths), 2)
    generator = None if seed is None else seeded(seed)
    batches = list(utterances(lengths).batches(rows, batch_size, generator))
    assert sorted(row for batch in batches for row in batch.row.tolist()) == list(rows)
    assert len(batches) == -(-len(rows) // batch_size)
    for batch in batches:
        expected = [lengths[row] for row in batch.row.tolist()]
        assert batch.attention_mask.sum(dim=1).tolist() == expected
        assert batch.input_ids.shape[1] == max(expected)


def test_the_generator_shuffles_and_repeats() -> None:
    tokenized = utterances([5] * 103)
    orders = [
        [row for batch in tokenized.batches(range(103), 7, seeded(seed)) for row in batch.row]
        for seed in (3, 3, 5)
    ]
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]


def test_little_is_padding() -> None:
    lengths = torch.randint(5, 128, (2003,), generator=seeded(0)).tolist()
    batches = list(utterances(lengths).batches(range(2003), 32, seeded(0)))
    padded = sum(batch.input_ids.numel() for batch in batches)
    assert padded < 1.05 * sum(lengths)


def test_moves_to_a_device() -> None:
    batch = utterances([2, 3]).batch([0, 1]).to("meta")
    assert {batch.row.device.type, batch.input_ids.device.type} == {"meta"}
