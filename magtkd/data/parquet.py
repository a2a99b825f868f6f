"""Parquet files in the schema."""

from __future__ import annotations

import contextlib
import os
import shlex
import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from magtkd.data.columns import REQUIRED, SCHEMA
from magtkd.data.delimited import (
    encoding_of,
    find_delimiter,
    plain_suffix,
    read_bytes,
)
from magtkd.errors import DataError, first_line

__all__ = ["check_output", "has_parquet", "read_folder", "read_parquet", "write_parquet"]

_MAGIC = b"PAR1"
# Files that `magtkd data convert` reads.
_CONVERTIBLE = {".csv", ".tsv", ".jsonl", ".ndjson", ".p", ".pickle", ".pkl", ".pt"}


def read_parquet(path: str | Path) -> pa.Table:
    """The table in a Parquet file, not yet validated.

    Raises:
        DataError: the file is missing, cannot be read, is not Parquet, or is damaged.
    """
    try:
        with Path(path).open("rb") as file:
            return pq.ParquetFile(file).read()
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file; give the path of the table") from None
    # Damage surfaces as any of these, and only when the file could be opened.
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: {_reason(error, Path(path))}") from None


def _reason(error: Exception, path: Path) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        return f"cannot be read: {error.strerror}; check data.path and its permissions"
    start, end = _ends(path)
    if start == _MAGIC and end != _MAGIC:
        return "it is truncated: it does not end as a Parquet file does; copy it again"
    if start != _MAGIC:
        if {suffix.lower() for suffix in path.suffixes[-2:]} & _CONVERTIBLE:
            if _is_of_a_release(path):
                return (
                    "not a Parquet file, and no table by its columns; of a release, give the "
                    f"folder: magtkd data convert {shlex.quote(str(path.parent))} --out "
                    f"{shlex.quote(str(path.parent / 'table.parquet'))}"
                )
            source, out = (shlex.quote(str(name)) for name in (path, path.with_suffix(".parquet")))
            return f"not a Parquet file; make one of it: magtkd data convert {source} --out {out}"
        columns = ", ".join(SCHEMA.names[:6])
        what = "not a Parquet file" if path.stat().st_size else "an empty file"
        return f"{what}; write one with the columns {columns}"
    return f"a damaged Parquet file: {first_line(error).rstrip(': ')[:120]}; write it again"


def _is_of_a_release(path: Path) -> bool:
    """Whether a CSV file has other columns than a table, as those of releases."""
    if plain_suffix(path) not in {".csv", ".tsv"}:
        return False
    try:
        raw = read_bytes(path)
        header = raw.decode(encoding_of(raw), "replace").partition("\n")[0]
    except DataError:
        return False
    names = {name.strip(' "\r') for name in header.split(find_delimiter(header))}
    return bool(set(REQUIRED) - names - {"text"})


def _ends(path: Path) -> tuple[bytes, bytes]:
    """The first and the last bytes of a file, where Parquet has its mark."""
    with path.open("rb") as file:
        start = file.read(len(_MAGIC))
        file.seek(max(0, path.stat().st_size - len(_MAGIC)))
        return start, file.read()


def read_folder(folder: Path) -> tuple[pa.Table, list[str]]:
    """The table in a folder of Parquet files, one below the other in the order of their names,
    and these names.

    Raises:
        DataError: there is none, one cannot be read, or they differ in a column's type.
    """
    names = [name for name in sorted(os.listdir(folder)) if _is_part(folder / name)]
    tables = [read_parquet(folder / name) for name in names]
    try:
        return pa.concat_tables(tables, promote_options="permissive"), names
    except pa.ArrowException as error:
        raise DataError(
            f"{folder}: its Parquet files differ: {first_line(error)[:120]}; give them the same "
            "columns, or name one of them"
        ) from None


def has_parquet(folder: Path) -> bool:
    """Whether there are Parquet files in a folder."""
    return any(_is_part(folder / name) for name in os.listdir(folder))


def _is_part(path: Path) -> bool:
    # As Spark and Dask write them, with `_metadata` and hidden files beside.
    named = path.suffix.lower() == ".parquet" and not path.name.startswith((".", "_"))
    return named and os.path.isfile(path)


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
