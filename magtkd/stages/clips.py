"""Clips on their way from the file to the device, the next batch while this one is worked on."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from magtkd.media import Clips

__all__ = ["ClipLoader"]

Collate = Callable[[list[Any]], tuple[Tensor, ...]]


class ClipLoader:
    """Loads batches of rows; where the order is known (`expect`), one ahead.

    Args:
        clips: by row of the data stage's table.
        collate: clips to tensors.
        device: where the tensors go.
    """

    def __init__(self, clips: Clips, collate: Collate, device: torch.device) -> None:
        self._clips, self._collate, self._device = clips, collate, device
        self._pool: ThreadPoolExecutor | None = None
        self._next: dict[int, Tensor] = {}
        self._ahead: dict[int, Future[tuple[Tensor, ...]]] = {}

    def expect(self, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        """These batches of rows, which will be loaded in this order."""
        self._ahead.clear()
        self._next = {int(one[0]): other for one, other in itertools.pairwise(batches)}
        return iter(batches)

    def load(self, batch: Tensor) -> tuple[Tensor, ...]:
        """The tensors of a batch of rows, on the device."""
        first = int(batch[0])
        waiting = self._ahead.pop(first, None)
        tensors = waiting.result() if waiting is not None else self._read(batch)
        following = self._next.pop(first, None)
        if following is not None:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(1)
            self._ahead[int(following[0])] = self._pool.submit(self._read, following)
        return tuple(tensor.to(self._device, non_blocking=True) for tensor in tensors)

    def _read(self, batch: Tensor) -> tuple[Tensor, ...]:
        tensors = self._collate([self._clips[row] for row in batch.tolist()])
        if self._device.type == "cuda":
            tensors = tuple(tensor.pin_memory() for tensor in tensors)
        return tensors
