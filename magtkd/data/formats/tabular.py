"""CSV and JSON lines with columns of the schema; features are lists, in CSV as JSON.

Cells may be separated by semicolons or tabs, and a file may be packed by gzip.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from magtkd.data.columns import FEATURES, REQUIRED, SCHEMA
from magtkd.data.delimited import (
    encoding_of,
    find_delimiter,
    is_blank,
    plain_suffix,
    read_bytes,
)
from magtkd.data.formats.conversion import Conversion, Options, whole_number
from magtkd.data.formats.repair import whole_characters
from magtkd.errors import DataError, and_more, shorten

__all__ = ["find_table", "read_table"]

_KINDS = {".csv": "CSV", ".tsv": "CSV", ".jsonl": "JSON lines", ".ndjson": "JSON lines"}
Record = dict[str, Any]


def find_table(source: Path) -> str | None:
    """The kind of a file, by its name; None for anything else."""
    return _KINDS.get(plain_suffix(source)) if os.path.isfile(source) else None


def read_table(source: Path, options: Options) -> Conversion:
    """The table of a CSV or JSON lines file.

    Raises:
        DataError: it cannot be read or is neither in UTF-8 nor in the encoding that its first bytes
            name, lacks a column, or a value is not of its column's type.
    """
    is_csv = _KINDS.get(plain_suffix(source)) == "CSV"
    records = _records_of_csv if is_csv else _records_of_json
    columns: dict[str, list[Any]] = {}
    ignored: dict[str, None] = {}
    num_rows = 0
    for place, record in records(source, _read(source)):
        for name, value in record.items():
            if name not in SCHEMA.names:
                ignored[name] = None
                continue
            values = columns.setdefault(name, [None] * num_rows)
            values.append(_convert(name, value, place))
        num_rows += 1
        for name, values in columns.items():
            if len(values) < num_rows:
                values.append(None)
            if len(values) > num_rows:
                raise DataError(f"{place}: {shorten(name)} is duplicated; keep one")
    _check_columns(source, columns, num_rows)
    table = pa.table({name: _column(name, columns[name]) for name in columns})
    notes = [f"not in the schema, so not taken: {and_more(ignored, 20)}"] if ignored else []
    return Conversion(table, num_rows, notes=notes)


def _read(source: Path) -> str:
    raw = read_bytes(source)
    encoding = encoding_of(raw)
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        name = encoding.removesuffix("-sig").upper()
        raise DataError(f"{source}: not {name} at byte {error.start}; save it as UTF-8") from None


def _records_of_csv(source: Path, text: str) -> Iterator[tuple[str, Record]]:
    # A cell with a feature list is longer than the module's 128 KiB.
    before = csv.field_size_limit(len(text) + 1)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=find_delimiter(text))
    try:
        header = next(reader, [])
        twice = [name for name in header if header.count(name) > 1]
        if twice:
            raise DataError(
                f"{source}: has the column {shorten(twice[0])} more than once; keep one"
            )
        for cells in reader:
            place = f"{source}, line {reader.line_num}"
            if is_blank(cells):
                continue
            if len(cells) != len(header):
                raise DataError(f"{place}: {len(cells)} cells, but the header has {len(header)}")
            yield place, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise DataError(f"{source}, line {reader.line_num}: not CSV: {error}") from None
    finally:
        csv.field_size_limit(before)


def _records_of_json(source: Path, text: str) -> Iterator[tuple[str, Record]]:
    for number, line in enumerate(text.split("\n"), start=1):
        place = f"{source}, line {number}"
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (json.JSONDecodeError, RecursionError):
            record = None
        if not isinstance(record, dict):
            raise DataError(f"{place}: not an object of JSON; write one utterance a line")
        yield place, record


def _check_columns(source: Path, columns: Record, num_rows: int) -> None:
    absent = [name for name in REQUIRED if name not in columns and name != "text"]
    if num_rows and absent:
        raise DataError(
            f"{source}: lacks the column {absent[0]}; it has {and_more(columns, 20) or 'none'} "
            "of the "
            f"schema's, and {', '.join(REQUIRED)} are needed (docs/formats.md); of a release, give "
            "the folder"
        )
    if num_rows and "text" not in columns:
        columns["text"] = [""] * num_rows
    if not num_rows:
        raise DataError(f"{source}: has no utterances; write one a line, below a header if CSV")


# --- values -----------------------------------------------------------------------------------


def _convert(name: str, value: Any, place: str) -> Any:
    if value is None or (value == "" and name != "text"):
        return None
    try:
        return _CONVERTERS[name](value)
    except (TypeError, ValueError, OverflowError, RecursionError):
        shown = shorten(ascii(value))
        raise DataError(f"{place}: {name}: {shown} is not {_WANTED[name]}; correct it") from None


def _text(value: Any) -> str:
    if isinstance(value, str | int) and not isinstance(value, bool):
        return whole_characters(str(value))
    raise TypeError


def _whole(value: Any) -> int:
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return int(np.int32(whole_number(value)))
    raise TypeError


def _number(value: Any) -> float:
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return float(value)
    raise TypeError


def _list(value: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
    items = json.loads(value) if isinstance(value, str) else value
    if not isinstance(items, list) or not items:
        raise TypeError
    if not all(type(item) in {int, float} for item in items):
        raise TypeError
    with np.errstate(over="ignore"):  # what float32 cannot hold is refused as not finite
        return np.array(items, np.float32)


def _converters() -> Iterator[tuple[str, Callable[[Any], Any], str]]:
    for field in SCHEMA:
        if field.name in FEATURES.values():
            yield field.name, _list, "a list of numbers"
        elif field.type == pa.string():
            yield field.name, _text, "text"
        elif field.type == pa.int32():
            yield field.name, _whole, "a whole number"
        else:
            yield field.name, _number, "a number"


_CONVERTERS = {name: convert for name, convert, _ in _converters()}
_WANTED = {name: wanted for name, _, wanted in _converters()}


def _column(name: str, values: list[Any]) -> pa.Array:
    kind = SCHEMA.field(name).type
    return pa.array(values, kind)
