"""Batches of conversations, bucketed by length so that little is padding.

Shape legend: N utterances, B conversations, L positions, F features, C conversations of a split.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from magtkd.data.columns import NO_LABEL, SPLITS
from magtkd.data.prepare import read_metadata

__all__ = ["Batch", "Conversations"]

# Lengths are stretched by up to this share before they are sorted, so that an epoch's batches are
# not the last epoch's.
LENGTH_JITTER = 0.2


@dataclass(frozen=True)
class Batch:
    """Conversations padded to the longest of them.

    `features` maps a modality to [B, L, F] float32, zero where padded; `mask` [B, L] bool is true
    for an utterance; `speaker` [B, L] int64 is the number of speakers where padded; `label` [B, L]
    int64 is `NO_LABEL` where padded and where an utterance has no label; `row` [B, L] int64 is the
    row in the table, -1 where padded.
    """

    features: dict[str, Tensor]
    mask: Tensor
    speaker: Tensor
    label: Tensor
    row: Tensor

    def to(self, device: torch.device | str) -> Batch:
        """The batch on a device; itself where it is there already."""
        if self.mask.device == torch.device(device):
            return self
        return Batch(
            features={name: value.to(device) for name, value in self.features.items()},
            mask=self.mask.to(device),
            speaker=self.speaker.to(device),
            label=self.label.to(device),
            row=self.row.to(device),
        )


class Conversations:
    """A prepared table as batches of conversations.

    Args:
        table: what `prepare` returned.
        features: for each modality wanted, [N, F] float32, aligned with the table's rows. Not
            copied, and not written to.
    """

    def __init__(self, table: pa.Table, features: Mapping[str, npt.NDArray[np.float32]]) -> None:
        for name, values in features.items():
            assert values.ndim == 2, f"{name}: {values.shape} is not [utterances, features]"
            assert len(values) == table.num_rows, f"{name}: {len(values)} rows, not the table's"
        metadata = read_metadata(table)
        self.features = {name: np.asarray(values, np.float32) for name, values in features.items()}
        self.num_speakers = metadata.num_speakers
        self.num_classes = len(metadata.labels)
        # One entry more than rows, for padding: row -1 is the last.
        self._label = np.append(table["label"].to_numpy().astype(np.int64), NO_LABEL)
        speaker = table["speaker_index"].to_numpy().astype(np.int64)
        self._speaker = np.append(speaker, self.num_speakers)
        self._rows, self._lengths = _index(table)

    def num_conversations(self, split: str) -> int:
        """How many conversations a split has; 0 where it does not exist."""
        return len(self._lengths[split])

    def with_labels(self, split: str) -> npt.NDArray[np.int64]:
        """The conversations of a split, by number, that have a label at all."""
        has_label = (self._label[self._rows[split]] != NO_LABEL).any(axis=1)
        return np.flatnonzero(has_label)

    def num_utterances(self, split: str) -> int:
        """How many utterances a split has; 0 where it does not exist."""
        return int(self._lengths[split].sum())

    def labels(self, split: str) -> npt.NDArray[np.int64]:
        """The label indices of a split's utterances, `NO_LABEL` included, in no order."""
        rows = self._rows[split]
        return self._label[rows[rows >= 0]]

    def batches(
        self, split: str, batch_size: int, generator: torch.Generator | None
    ) -> Iterator[Batch]:
        """Every utterance of a split exactly once, conversations of like length together. Shuffled
        ones are to learn from, so that conversations without any label are left out.

        Args:
            split: `train`, `dev` or `test`.
            batch_size: conversations a batch, at least 1; one batch may have fewer.
            generator: a CPU generator that shuffles; None always gives the same batches.
        """
        rows, lengths = self._rows[split], self._lengths[split]
        if generator is not None:
            wanted = self.with_labels(split)
            rows, lengths = rows[wanted], lengths[wanted]
        for group in _groups(lengths, batch_size, generator):
            yield self._batch(rows[group, : lengths[group].max()])

    def _batch(self, row: npt.NDArray[np.int64]) -> Batch:
        mask = row >= 0
        padded = ~mask
        features = {}
        for name, values in self.features.items():
            gathered = values[row]
            gathered[padded] = 0.0
            features[name] = torch.from_numpy(gathered)
        return Batch(
            features=features,
            mask=torch.from_numpy(mask),
            speaker=torch.from_numpy(self._speaker[row]),
            label=torch.from_numpy(self._label[row]),
            row=torch.from_numpy(np.ascontiguousarray(row)),
        )


def _groups(
    lengths: npt.NDArray[np.int64], batch_size: int, generator: torch.Generator | None
) -> Iterator[npt.NDArray[np.int64]]:
    """Conversations of each batch, as positions in `lengths`."""
    num_batches = -(-len(lengths) // batch_size)
    if num_batches == 0:
        return
    sizes = np.full(num_batches, batch_size)
    short = num_batches * batch_size - len(lengths)
    if generator is None:
        order = np.argsort(lengths, kind="stable")
        turns = np.arange(num_batches)
        sizes[-1] -= short
    else:
        jitter = torch.rand(len(lengths), generator=generator, dtype=torch.float64).numpy()
        order = np.argsort(lengths * (1.0 + LENGTH_JITTER * jitter), kind="stable")
        turns = torch.randperm(num_batches, generator=generator).numpy()
        # Anywhere, lest the longest conversations always make the small batch.
        sizes[int(torch.randint(num_batches, (1,), generator=generator))] -= short
    ends = np.cumsum(sizes)
    for turn in turns:
        yield order[ends[turn] - sizes[turn] : ends[turn]]


def _index(
    table: pa.Table,
) -> tuple[dict[str, npt.NDArray[np.int64]], dict[str, npt.NDArray[np.int64]]]:
    """Each split's rows by conversation, [C, longest], -1 where padded, and its lengths, [C]."""
    rows: dict[str, npt.NDArray[np.int64]] = {}
    lengths: dict[str, npt.NDArray[np.int64]] = {}
    keys: list[tuple[str, Any]] = [("dialogue_id", "ascending"), ("utterance_id", "ascending")]
    order = pc.sort_indices(table, sort_keys=keys).to_numpy().astype(np.int64)
    dialogue = table["dialogue_id"].combine_chunks().take(pa.array(order)).dictionary_encode()
    codes = dialogue.indices.to_numpy()
    split_of_row = pc.index_in(table["split"], value_set=pa.array(SPLITS)).to_numpy()[order]
    for index, split in enumerate(SPLITS):
        here = split_of_row == index
        rows[split], lengths[split] = _pad(order[here], codes[here])
    return rows, lengths


def _pad(
    order: npt.NDArray[np.int64], codes: npt.NDArray[np.int32]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    _, lengths = np.unique(codes, return_counts=True)
    longest = int(lengths.max(initial=0))
    position = np.arange(longest)
    padded = np.full((len(lengths), longest), -1, np.int64)
    # Both follow the sorted dialogue ids, so this fills conversation by conversation.
    padded[position < lengths[:, None]] = order
    return padded, lengths
