from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from magtkd.data.columns import features_column

LENGTHS = {"train": (5, 1, 3), "dev": (2,), "test": (3, 2)}


def _make_table(**replaced: Any) -> pa.Table:
    """Six small conversations with text features; keywords replace columns, None leaves one out."""
    rows = [
        (split, f"{split}{dialogue}", utterance)
        for split, lengths in LENGTHS.items()
        for dialogue, length in enumerate(lengths)
        for utterance in range(length)
    ]
    split, dialogue, utterance = (list(column) for column in zip(*rows, strict=True))
    number = np.arange(len(rows))
    columns: dict[str, Any] = {
        "split": split,
        "dialogue_id": dialogue,
        "utterance_id": pa.array(utterance, pa.int32()),
        "speaker": [f"speaker {index % 2}" for index in number],
        "text": [f"utterance number {index}" for index in number],
        "label": [("joy", "anger")[index % 2] for index in number],
        "text_features": features_column(np.sin(number[:, None] * np.arange(1, 8))),
    }
    columns |= replaced
    return pa.table({name: values for name, values in columns.items() if values is not None})


@pytest.fixture
def make_table() -> Callable[..., pa.Table]:
    return _make_table
