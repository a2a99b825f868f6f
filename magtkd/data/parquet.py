"""Parquet files in the schema."""

from __future__ import annotations

import contextlib
import os
import shlex
import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from magtkd.data.columns import SCHEMA
from magtkd.errors import DataError, first_line

__all__ = ["check_output", "read_parquet", "write_parquet"]

_MAGIC = b"PAR1"
# Files that `magtkd data convert` reads.
_CONVERTIBLE = {".csv", ".jsonl", ".ndjson", ".p", ".pickle", ".pkl", ".pt"}


def read_parquet(path: str | Path) -> pa.Table:
    """The table in a Parquet file, not yet validated.

    Raises:
        DataError: the file is missing, cannot be read, or is not Parquet.
    """
    try:
        with Path(path).open("rb") as file:
            return pq.read_table(file)
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file; give the path of the table") from None
    # Damaged pages surface as OSError or as ArrowInvalid; both only when the file could be opened.
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: {_reason(error, Path(path))}") from None


def _reason(error: Exception, path: Path) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        return f"cannot be read: {error.strerror}; check data.path and its permissions"
    if isinstance(error, pa.ArrowInvalid):
        if path.suffix.lower() in _CONVERTIBLE:
            source, out = (shlex.quote(str(name)) for name in (path, path.with_suffix(".parquet")))
            return f"not a Parquet file; make one of it: magtkd data convert {source} --out {out}"
        columns = ", ".join(SCHEMA.names[:6])
        return f"not a Parquet file; write one with the columns {columns}"
    return f"not a readable Parquet file: {first_line(error)}; write it again"


def check_output(path: str | Path) -> None:
    """Refuse a path where writing a table would destroy something, or cannot succeed.

    Raises:
        DataError: it is a folder or in none, or there is a file other than Parquet.
    """
    path = Path(path)
    if os.path.isdir(path):
        raise DataError(f"{path}: cannot be written: it is a folder; name a file in it")
    if not os.path.isdir(path.parent):
        missing = "is not a folder" if os.path.exists(path.parent) else "does not exist"
        raise DataError(f"{path}: cannot be written: the folder {path.parent} {missing}; make it")
    if os.path.exists(path) and not _is_parquet(path):
        raise DataError(
            f"{path}: is there already and is not a Parquet file, so it is not replaced; choose "
            "another name, or delete it first"
        )


def _is_parquet(path: Path) -> bool:
    if not os.path.isfile(path):  # to read from a pipe would wait for its writer
        return False
    try:
        with path.open("rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError as error:
        raise DataError(
            f"{path}: is there already and cannot be read: {error.strerror}; choose another name"
        ) from None


def write_parquet(table: pa.Table, path: str | Path) -> None:
    """Write a table to a Parquet file, all of it or nothing; an older Parquet file is replaced.

    Raises:
        DataError: the file cannot be written, or `check_output` refuses it.
    """
    path = Path(path)
    check_output(path)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        # Opened here, since pyarrow's own message would name the partial file.
        with partial.open("wb") as file:
            pq.write_table(table, file, compression="zstd")
        partial.replace(path)
    except OSError as error:
        reason = error.strerror or first_line(error)
        raise DataError(f"{path}: cannot be written: {reason}; choose another place") from None
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
