from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magtkd.data import make_corpus
from magtkd.data.formats.conversion import Options
from magtkd.data.formats.convert import convert
from magtkd.data.formats.tabular import find_table, read_table
from magtkd.errors import DataError

Rows = list[dict[str, Any]]


def write_csv(path: Path, rows: Rows) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        for row in rows:
            writer.writerow(
                {k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()}
            )


def write_json(path: Path, rows: Rows) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


WRITERS = {".csv": write_csv, ".jsonl": write_json}


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_table_comes_back_as_it_was(
    tmp_path: Path, make_table: Callable[..., pa.Table], suffix: str
) -> None:
    table = make_table(
        start=[None, *(index / 7 for index in range(15))],
        video_path=[None, *(f"clips/{index}.mp4" for index in range(15))],
    )
    path = tmp_path / f"table{suffix}"
    WRITERS[suffix](path, table.to_pylist())
    conversion = read_table(path, Options())
    assert conversion.num_read == 16
    assert make_corpus(conversion.table, "x").fingerprint == make_corpus(table, "x").fingerprint
    assert find_table(path) == {".csv": "CSV", ".jsonl": "JSON lines"}[suffix]


ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-32")


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(
    ("name", "delimiter"), [("a.csv", ";"), ("a.csv", "\t"), ("a.tsv", "\t"), ("a.csv.gz", ",")]
)
def test_tables_as_spreadsheets_save_them(
    tmp_path: Path, make_table: Callable[..., pa.Table], name: str, delimiter: str, encoding: str
) -> None:
    table = make_table(text=["é, “quoted”; and\tso on"] * 16)
    write_csv(tmp_path / "plain.csv", table.to_pylist())
    with (tmp_path / "plain.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerows([*rows, [""] * len(rows[0]), [" "]])  # what a spreadsheet leaves below
    raw = text.getvalue().encode(encoding)
    (tmp_path / name).write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
    assert find_table(tmp_path / name) == "CSV"
    made = make_corpus(read_table(tmp_path / name, Options()).table, "x")
    assert made.fingerprint == make_corpus(table, "x").fingerprint


def test_halves_of_characters(tmp_path: Path, make_table: Callable[..., pa.Table]) -> None:
    """JSON can say what no text can hold."""
    rows = make_table().to_pylist()
    rows[0]["text"], rows[1]["text"] = "ok \ud83d", "ok \ud83d" + "\ude00"
    rows[2]["speaker"] = "\udc80"
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    corpus = make_corpus(read_table(tmp_path / "a.jsonl", Options()).table, "x")
    texts = corpus.table["text"].to_pylist()
    assert "ok \ufffd" in texts
    assert "ok 😀" in texts
    assert "1 texts have U+FFFD in place of a character that was lost" in corpus.warnings


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=9)


@settings(max_examples=60)
@given(texts=st.lists(texts, min_size=1, max_size=5))
def test_any_text_comes_back(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    row = {"split": "train", "dialogue_id": "a", "speaker": "b", "label": "c"}
    rows = [row | {"utterance_id": index, "text": text} for index, text in enumerate(texts)]
    for suffix, write in WRITERS.items():
        path = tmp_path_factory.getbasetemp() / f"texts{suffix}"
        write(path, rows)
        table = read_table(path, Options()).table
        assert table["text"].to_pylist() == texts


def test_other_columns_and_no_text(tmp_path: Path, make_table: Callable[..., pa.Table]) -> None:
    rows = [row | {"mood": "x"} for row in make_table(text=None).to_pylist()]
    write_csv(tmp_path / "a.csv", rows)
    conversion = read_table(tmp_path / "a.csv", Options())
    assert conversion.notes == ["not in the schema, so not taken: mood"]
    assert conversion.table["text"].to_pylist() == [""] * 16


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("absent", [None, "", "  "])
def test_what_has_no_label(
    tmp_path: Path, make_table: Callable[..., pa.Table], suffix: str, absent: str | None
) -> None:
    rows = make_table().to_pylist()
    for row in rows[1::5]:
        row["label"] = absent
    path = tmp_path / f"a{suffix}"
    WRITERS[suffix](path, rows)
    kept = convert(path, tmp_path / "kept.parquet")
    assert kept.corpus.table["label"].null_count == 3
    assert kept.facts()["written"] == 16
    dropped = convert(path, tmp_path / "dropped.parquet", Options(unlabelled="drop"))
    assert dropped.facts()["dropped"] == {"without a label": 3}
    assert dropped.corpus.table.num_rows == 13
    with pytest.raises(DataError, match="--unlabelled never: choose drop, keep"):
        Options(unlabelled="never")


ROW = {
    "split": "train",
    "dialogue_id": "d",
    "utterance_id": 1,
    "speaker": "s",
    "text": "t",
    "label": "l",
    "audio_features": [1.5, 2],
}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("utterance_id", "first", "utterance_id: 'first' is not a whole number; correct it"),
        ("utterance_id", 1 << 40, "utterance_id: 1099511627776 is not a whole number"),
        ("utterance_id", 1.5, "utterance_id: 1.5 is not a whole number"),
        ("start", "soon", "start: 'soon' is not a number"),
        ("label", ["x"], "label: .* is not text"),
        ("audio_features", [], "is not a list of numbers"),
        ("audio_features", "1 2", "audio_features: '1 2' is not a list of numbers"),
        ("audio_features", [[1], [2]], "is not a list of numbers"),
        ("audio_features", ["1"], "is not a list of numbers"),
        ("text_features", "[" * 9999, "text_features: '.* is not a list of numbers"),
    ],
)
def test_values_of_another_type(tmp_path: Path, name: str, value: Any, message: str) -> None:
    write_json(tmp_path / "a.jsonl", [ROW, ROW | {name: value}])
    with pytest.raises(DataError, match=rf"a\.jsonl, line 2: .*{message}"):
        read_table(tmp_path / "a.jsonl", Options())


@pytest.mark.parametrize(
    ("suffix", "content", "message"),
    [
        (".csv", b"split,text\ntrain,\xff\n", "not UTF-8 at byte 17; save it as UTF-8"),
        (".csv", b"split,text\ntrain,a,b\n", "line 2: 3 cells, but the header has 2"),
        (".csv", b"split,split\n", "has the column split more than once"),
        (".csv.gz", b"split", "is not gzip, or a part of it: fetch it again"),
        (".csv.gz", gzip.compress(b"split,text\n", mtime=0)[:-9], "is not gzip, or a part of it"),
        (".csv", codecs.BOM_UTF16_LE + b"x", "not UTF-16 at byte 2; save it as UTF-8"),
        (".csv", b"", "has no utterances"),
        (".csv", b"split,text\n", "has no utterances; write one a line"),
        (".csv", b"split,text\ntrain,a\n", r"lacks the column dialogue_id; it has split, text of"),
        (".jsonl", b"[1]\n", "line 1: not an object of JSON; write one utterance a line"),
        (".jsonl", b"{}\n{\n", "line 2: not an object"),
        (".jsonl", b"[" * 99999, "line 1: not an object"),
    ],
)
def test_other_files(tmp_path: Path, suffix: str, content: bytes, message: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_table(path, Options())


def test_what_float32_cannot_hold_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "a.jsonl", [ROW | {"audio_features": [1e300]}])
    table = read_table(tmp_path / "a.jsonl", Options()).table
    with pytest.raises(DataError, match="non-finite values in audio_features of 1 utterances"):
        make_corpus(table, "x")
