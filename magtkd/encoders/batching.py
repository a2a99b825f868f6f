"""Batches with little padding: inputs of similar length are in one batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["length_batches"]

BUCKET = 50
"""Shuffled batches that are sorted by length together."""

Rows = npt.NDArray[np.int64]


def length_batches(
    lengths: Rows,
    rows: Sequence[int] | Rows | Tensor,
    batch_size: int,
    generator: torch.Generator | None = None,
) -> Iterator[Rows]:
    """Batches of these rows, each row once, rows of like length together.

    Args:
        lengths: the length of each row of the table.
        rows: rows of the table.
        batch_size: rows a batch, fewer in at most one.
        generator: shuffles rows and batches; None: by length, in a fixed order.
    """
    chosen = np.asarray(rows, dtype=np.int64)
    lengths = lengths[chosen]
    if generator is None:
        order = np.argsort(lengths, kind="stable")
        for start in range(0, len(order), batch_size):
            yield chosen[order[start : start + batch_size]]
        return
    order = torch.randperm(len(chosen), generator=generator).numpy()
    parts = []
    for start in range(0, len(order), BUCKET * batch_size):
        bucket = order[start : start + BUCKET * batch_size]
        bucket = bucket[np.argsort(lengths[bucket], kind="stable")]
        parts += [bucket[at : at + batch_size] for at in range(0, len(bucket), batch_size)]
    for part in torch.randperm(len(parts), generator=generator).tolist():
        yield chosen[parts[part]]
