"""Parquet files in the schema."""

from __future__ import annotations

import contextlib
import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from magtkd.data.columns import SCHEMA
from magtkd.errors import DataError

__all__ = ["read_parquet", "write_parquet"]


def read_parquet(path: str | Path) -> pa.Table:
    """The table in a Parquet file, not yet validated.

    Raises:
        DataError: the file is missing, cannot be read, or is not Parquet.
    """
    try:
        with Path(path).open("rb") as file:
            return pq.read_table(file)
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file; set data.path to the table") from None
    # Damaged pages surface as OSError or as ArrowInvalid; both only when the file could be opened.
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        return f"cannot be read: {error.strerror}; check data.path and its permissions"
    if isinstance(error, pa.ArrowInvalid):
        columns = ", ".join(SCHEMA.names[:6])
        return f"not a Parquet file; write one with the columns {columns}"
    return f"not a readable Parquet file: {str(error).splitlines()[0]}; write it again"


def write_parquet(table: pa.Table, path: str | Path) -> None:
    """Write a table to a Parquet file, all of it or nothing.

    Raises:
        DataError: the file cannot be written.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        pq.write_table(table, partial, compression="zstd")
        partial.replace(path)
    except OSError as error:
        reason = error.strerror or str(error).splitlines()[0]
        raise DataError(f"{path}: cannot be written: {reason}; choose another place") from None
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
