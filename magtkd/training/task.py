"""What a stage adds to the training loop.

Shapes: N utterances of a batch, H hidden_dim, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

__all__ = ["BatchT", "Outputs", "Task"]

BatchT = TypeVar("BatchT")


@dataclass(frozen=True)
class Outputs:
    """A model's outputs for some utterances: `row` [N] of the table, `features` [N, H],
    `logits` [N, C]."""

    row: Tensor
    features: Tensor
    logits: Tensor


class Task(Protocol[BatchT]):
    """A model, batches, a loss and outputs."""

    num_items: int
    """The utterances or conversations of one pass over train, whichever are batched, without those
    that have no label."""

    @property
    def model(self) -> nn.Module:
        """The model, on the device once the session has begun."""

    def batches(self, split: str, generator: torch.Generator | None) -> Iterable[BatchT]:
        """Batches of a split: what there is to learn from, shuffled by the generator; without one,
        all utterances in a fixed order."""

    def loss(self, batch: BatchT, section: Any) -> Tensor:
        """The training loss of a batch, with the section's values of this epoch."""

    def num_utterances(self, batch: BatchT) -> int:
        """How many utterances of a batch are in its loss."""

    def outputs(self, batch: BatchT) -> Outputs:
        """Features and logits of the batch's real utterances."""
