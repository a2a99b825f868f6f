from __future__ import annotations

import pytest

from magtkd.config import DataConfig, SyntheticConfig
from magtkd.data import read_corpus
from magtkd.errors import ConfigError, DataError


def test_synthetic_corpus() -> None:
    corpus = read_corpus(DataConfig(synthetic=SyntheticConfig(seed=3)))
    assert corpus.source == "synthetic"
    assert (
        corpus.fingerprint == read_corpus(DataConfig(synthetic=SyntheticConfig(seed=3))).fingerprint
    )
    assert corpus.fingerprint != read_corpus(DataConfig(synthetic=SyntheticConfig())).fingerprint


def test_no_source_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^data\.path: names no table; set data\.path=FILE or"):
        read_corpus(DataConfig())


def test_missing_path_is_refused() -> None:
    with pytest.raises(DataError, match=r"^nowhere/x\.parquet: there is no such file"):
        read_corpus(DataConfig(path="nowhere/x.parquet"))
