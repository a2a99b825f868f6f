"""Tables: CSV and JSON lines as they are converted, Parquet files as they are inspected."""

from __future__ import annotations

import csv
import gzip
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, reject
from hypothesis import strategies as st
from rich.console import Console

from magtkd.data import SCHEMA, read_path
from magtkd.data.describe import render
from magtkd.data.formats.convert import convert
from tests.fuzz.limits import FUZZ, is_taken
from tests.fuzz.mutations import RARELY, SCALARS, TEXTS, VALUES, torn

Row = dict[str, Any]
COLUMNS = st.sampled_from(SCHEMA.names)


@st.composite
def rows(draw: st.DrawFn, values: st.SearchStrategy[Any] = VALUES) -> list[Row]:
    """A table's rows, most of them right."""
    has_features = draw(st.booleans())
    table: list[Row] = []
    for number in range(draw(st.integers(1, 6))):
        row = {
            "split": ["train", "dev", "test"][number % 3],
            "dialogue_id": f"d{number}",
            "utterance_id": number,
            "speaker": draw(st.sampled_from(["A", "B"])),
            "text": draw(st.sampled_from(["hello", ""]) | TEXTS),
            "label": draw(st.sampled_from(["joy", "joy", "joy", None])),
        }
        if has_features:
            row["text_features"] = [0.5, float(number)]
        table.append(row)
    for _ in range(draw(st.integers(0, 2))):
        row = draw(st.sampled_from(table))
        row[draw(COLUMNS | TEXTS)] = draw(values)
    if draw(RARELY):
        name = draw(COLUMNS)
        for row in table:
            row.pop(name, None)
    if draw(RARELY):
        name = draw(COLUMNS)
        for row in table:
            row[name] = draw(SCALARS)
    return table


ENCODINGS = st.sampled_from(["utf-8"] * 6 + ["utf-8-sig", "utf-16", "utf-32", "latin-1"])


@st.composite
def texts(draw: st.DrawFn) -> tuple[str, bytes]:
    """The name and the bytes of a file of text."""
    table = draw(rows())
    if draw(st.booleans()):
        name, text = "table.jsonl", "\n".join(map(_as_json, table)) + "\n"
    else:
        name, stream = "table.csv", io.StringIO()
        header = list(dict.fromkeys(name for row in table for name in row))
        delimiter = draw(st.sampled_from(",,;\t|"))
        quoting = draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
        writer = csv.writer(stream, delimiter=delimiter, quoting=quoting)
        writer.writerow(header)
        writer.writerows([_as_cell(row.get(name)) for name in header] for row in table)
        text = stream.getvalue()
    content = text.encode(draw(ENCODINGS), "replace")
    if draw(st.booleans()):
        content = draw(torn(content))
    if draw(RARELY):
        return f"{name}.gz", draw(torn(gzip.compress(content, mtime=0)))
    return name, content


def _as_json(value: Any) -> str:
    try:
        return json.dumps(value)
    except RecursionError:
        return "[" * 3000 + "]" * 3000


def _as_cell(value: Any) -> Any:
    return _as_json(value) if isinstance(value, list | dict) else value


TYPES: st.SearchStrategy[pa.DataType] = st.sampled_from(
    [
        *(pa.string(), pa.large_string(), pa.binary(), pa.dictionary(pa.int8(), pa.string())),
        *(pa.int8(), pa.int32(), pa.int64(), pa.uint64(), pa.bool_(), pa.decimal128(10, 2)),
        *(pa.float16(), pa.float32(), pa.float64(), pa.null(), pa.date32(), pa.timestamp("ns")),
        *(pa.list_(pa.float32()), pa.list_(pa.float64(), 2), pa.large_list(pa.float16())),
        *(pa.list_(pa.string()), pa.list_(pa.list_(pa.float32())), pa.struct([("a", pa.int32())])),
    ]
)


@st.composite
def parquets(draw: st.DrawFn) -> bytes:
    """The bytes of a Parquet file."""
    table = draw(rows(SCALARS | st.lists(SCALARS, max_size=3)))
    names = list(dict.fromkeys(name for row in table for name in row))
    columns = {}
    for name in names:
        values = [row.get(name) for row in table]
        kind = SCHEMA.field(name).type if name in SCHEMA.names else None
        for wanted in (*draw(st.lists(TYPES, max_size=1)), kind, pa.string(), pa.null()):
            try:
                columns[name] = pa.array(values, wanted)
                break
            except (pa.ArrowException, TypeError, ValueError, OverflowError, RecursionError):
                columns[name] = pa.nulls(len(values))
    sink = io.BytesIO()
    compression = draw(st.sampled_from(["none", "zstd", "snappy"]))
    try:
        pq.write_table(pa.table(columns), sink, compression=compression)
    except (pa.ArrowNotImplementedError, UnicodeEncodeError):  # what Parquet cannot hold
        reject()
    return draw(torn(sink.getvalue()))


def _fresh_folder(factory: pytest.TempPathFactory, name: str) -> Path:
    folder = factory.getbasetemp() / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


@FUZZ
@given(file=texts())
def test_a_table_of_text(file: tuple[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = _fresh_folder(tmp_path_factory, "texts")
    source, out = folder / file[0], folder / "out.parquet"
    source.write_bytes(file[1])
    summary = None

    def read() -> None:
        nonlocal summary
        summary = convert(source, out)
        Console(file=io.StringIO()).print(summary.render())

    if is_taken(read, folder):
        assert summary is not None
        again = read_path(out)
        assert again.fingerprint == summary.corpus.fingerprint
        assert again.table.num_rows == summary.conversion.num_read


@FUZZ
@given(content=parquets())
def test_a_table_of_parquet(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = _fresh_folder(tmp_path_factory, "parquets")
    path = folder / "table.parquet"
    path.write_bytes(content)
    is_taken(lambda: Console(file=io.StringIO()).print(render(read_path(path))), folder)
    assert path.read_bytes() == content
