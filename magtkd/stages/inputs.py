"""What a stage is given: the prepared table and the features and logits of the stages before it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from magtkd.data import NO_LABEL, SPLITS, Metadata, read_metadata
from magtkd.media import Clips

__all__ = ["Inputs"]


@dataclass(frozen=True)
class Inputs:
    """`data` is the data stage's table; `tables` has those of the trained stages that this one
    reads, by their modality (the teacher's is `text`), with their rows in the same order; `media`
    has the clips by modality."""

    data: pa.Table
    tables: Mapping[str, pa.Table]
    media: Mapping[str, Clips] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for modality, table in self.tables.items():
            assert table.num_rows == self.data.num_rows, f"{modality} has other rows than data"

    @property
    def metadata(self) -> Metadata:
        """Labels, number of speakers, modalities and widths."""
        return read_metadata(self.data)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.metadata.labels

    @property
    def label(self) -> np.ndarray:
        """[num_utterances] label, as an index of `labels`; `NO_LABEL` where there is none."""
        return self.data.column("label").to_numpy().astype(np.int64)  # type: ignore[no-any-return]

    @property
    def split(self) -> np.ndarray:
        """[num_utterances] split."""
        return self.data.column("split").to_numpy()  # type: ignore[no-any-return]

    def rows_by_split(self) -> dict[str, Tensor]:
        """Row numbers of each split's utterances."""
        split = self.split
        return {name: torch.from_numpy(np.flatnonzero(split == name)) for name in SPLITS}

    def rows_to_learn(self) -> Tensor:
        """Row numbers of train's utterances that have a label."""
        return torch.from_numpy(np.flatnonzero(self._is_to_learn))

    @property
    def _is_to_learn(self) -> np.ndarray:
        return (self.split == "train") & (self.label != NO_LABEL)  # type: ignore[no-any-return]

    def class_weights(self, how: str, device: torch.device) -> Tensor | None:
        """[num_classes] weights for the cross-entropy: None, or `balanced` on train."""
        if how == "none":
            return None
        count = np.bincount(self.label[self._is_to_learn], minlength=len(self.labels))
        return torch.from_numpy(count.sum() / (len(count) * count)).float().to(device)
