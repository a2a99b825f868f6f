from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, settings

from magtkd.config import Config, SyntheticConfig, with_values
from magtkd.data import make_synthetic, write_parquet

# How long an example takes to draw says something of the machine's load, not of the code.
settings.register_profile("any-load", suppress_health_check=[HealthCheck.too_slow], deadline=None)
settings.load_profile("any-load")

CORPUS = SyntheticConfig(
    num_dialogues=23,
    mean_length=4,
    num_emotions=3,
    num_speakers=5,
    text_dim=11,
    audio_dim=7,
    video_dim=5,
)
CONFIG = Config.model_validate(
    {
        "data": {"synthetic": CORPUS},
        "teacher": {"epochs": 2, "batch_size": 13, "hidden_dim": 6},
        "audio": {"epochs": 2, "batch_size": 13, "hidden_dim": 6},
        "video": {"epochs": 2, "batch_size": 13, "hidden_dim": 6},
        "fusion": {
            "epochs": 3,
            "batch_size": 5,
            "hidden_dim": 6,
            "num_heads": 3,
            "learning_rate": 0.01,
        },
    }
)


@pytest.fixture(scope="session")
def tiny_table() -> pa.Table:
    """A made-up corpus of 23 short conversations with all three modalities."""
    return make_synthetic(CORPUS)


@pytest.fixture(scope="session")
def tiny_config() -> Callable[..., Config]:
    """A configuration that trains that corpus in a moment; takes values by dotted name."""

    def make(values: dict[str, Any] | None = None) -> Config:
        return with_values(CONFIG, values or {})

    return make


@pytest.fixture
def tiny_parquet(tiny_table: pa.Table, tmp_path: Path) -> Callable[..., Path]:
    """Writes that corpus, without the columns that are named, to a Parquet file."""

    def write(*without: str) -> Path:
        path = tmp_path / f"table-without-{'-'.join(without) or 'nothing'}.parquet"
        write_parquet(tiny_table.drop_columns(list(without)), path)
        return path

    return write


@pytest.fixture
def data_folder() -> Path:
    """The folder of real conversations; skips where there is none."""
    folder = os.environ.get("MAGTKD_DATA")
    if not folder:
        pytest.skip("MAGTKD_DATA names no folder with the real data")
    return Path(folder)
