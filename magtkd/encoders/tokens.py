"""Tokenised prompts, and batches of them with little padding.

Shapes: N utterances of a batch, T tokens of its longest prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from magtkd.encoders.batching import length_batches

__all__ = ["TokenBatch", "TokenizedUtterances"]


@dataclass(frozen=True)
class TokenBatch:
    """Prompts padded on the left: `row` [N] of the table, `input_ids` and `attention_mask`
    [N, T], all int64."""

    row: Tensor
    input_ids: Tensor
    attention_mask: Tensor

    def to(self, device: torch.device | str) -> TokenBatch:
        """The same batch on a device."""
        return TokenBatch(
            self.row.to(device), self.input_ids.to(device), self.attention_mask.to(device)
        )


@dataclass(frozen=True)
class TokenizedUtterances:
    """The prompt of every utterance, by row of the table, as token numbers.

    Built by `TextEncoder.encode_inputs`.
    """

    ids: Sequence[np.ndarray]
    pad_id: int

    @property
    def lengths(self) -> np.ndarray:
        """[num_utterances] tokens of each prompt."""
        return np.array([len(prompt) for prompt in self.ids], dtype=np.int64)

    def batch(self, rows: Sequence[int] | np.ndarray | Tensor) -> TokenBatch:
        """These rows as one batch, in the order given."""
        chosen = torch.as_tensor(rows, dtype=torch.int64)
        prompts = [self.ids[row] for row in chosen.tolist()]
        width = max(map(len, prompts))
        input_ids = np.full((len(prompts), width), self.pad_id, dtype=np.int64)
        attention_mask = np.zeros((len(prompts), width), dtype=np.int64)
        for line, prompt in enumerate(prompts):
            input_ids[line, width - len(prompt) :] = prompt
            attention_mask[line, width - len(prompt) :] = 1
        return TokenBatch(chosen, torch.from_numpy(input_ids), torch.from_numpy(attention_mask))

    def batches(
        self,
        rows: Sequence[int] | np.ndarray | Tensor,
        batch_size: int,
        generator: torch.Generator | None = None,
    ) -> Iterator[TokenBatch]:
        """Batches of these rows, each row once, prompts of like length together.

        Args:
            rows: rows of the table.
            batch_size: utterances a batch, fewer in at most one.
            generator: shuffles utterances and batches; None: by length, in a fixed order.
        """
        for part in length_batches(self.lengths, rows, batch_size, generator):
            yield self.batch(part)
