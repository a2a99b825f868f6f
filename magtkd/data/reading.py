"""Reading the corpus that a configuration or a path names."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from magtkd.config import DataConfig
from magtkd.data.formats.meld import csv_path, file_name, read_meld
from magtkd.data.parquet import has_parquet, read_folder, read_parquet
from magtkd.data.synthetic import make_synthetic
from magtkd.data.table import Corpus, make_corpus
from magtkd.errors import ConfigError, DataError, and_more

__all__ = ["media_root", "read_corpus", "read_path"]


def read_corpus(config: DataConfig) -> Corpus:
    """The corpus that a configuration names.

    Raises:
        ConfigError: it names none.
        DataError: it cannot be read, or breaks a rule of `validate_table`.
    """
    if config.synthetic is not None:
        return make_corpus(make_synthetic(config.synthetic), "synthetic")
    if config.path is None:
        raise ConfigError("data.path: names no table; set data.path=FILE or use data.synthetic")
    return replace(read_path(config.path), media=media_root(config))


def media_root(config: DataConfig) -> Path:
    """The folder that the clips' paths are relative to: the configuration's, else the table's
    own."""
    if config.media is not None:
        return Path(config.media)
    path = Path(config.path or ".")
    return path if os.path.isdir(path) else path.parent


def read_path(path: str | Path) -> Corpus:
    """The corpus in a Parquet file, or in a folder with MELD's CSV files or with Parquet files.

    Raises:
        DataError: it cannot be read, or breaks a rule of `validate_table`.
    """
    # os.path, since pathlib raises on folders that may not be entered, whatever the version.
    if not os.path.isdir(path):
        return make_corpus(read_parquet(path), str(path))
    if os.path.exists(csv_path(Path(path), "train")):
        table, warnings = read_meld(path)
        return make_corpus(table, str(path), warnings)
    try:
        is_table = has_parquet(Path(path))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; check data.path") from None
    if not is_table:
        raise DataError(
            f"{path}: a folder without {file_name('train')} and without .parquet files; give a "
            "Parquet file, a folder of these or one with MELD's CSV files, or convert another "
            "release with magtkd data convert"
        )
    table, names = read_folder(Path(path))
    return make_corpus(
        table, str(path), (f"read from the folder's Parquet files: {and_more(names, 5)}",)
    )
