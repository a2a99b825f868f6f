from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from magtkd.cli import app, run_app
from magtkd.data import read_parquet, read_path, write_parquet
from magtkd.errors import DataError

MakeTable = Callable[..., pa.Table]


def test_round_trip_keeps_the_fingerprint(tmp_path: Path, make_table: MakeTable) -> None:
    write_parquet(make_table(), tmp_path / "one.parquet")
    pq.write_table(make_table(), tmp_path / "two.parquet", compression="gzip", row_group_size=5)
    one, two = read_path(tmp_path / "one.parquet"), read_path(tmp_path / "two.parquet")
    assert one.table.equals(two.table)
    assert one.fingerprint == two.fingerprint
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["one.parquet", "two.parquet"]


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.parquet: there is no such file; give "):
        read_path(tmp_path / "none.parquet")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "an empty file; write one with the columns split"),
        (b"split,label\n", "not a Parquet file; write one with the columns split"),
        (b"PAR1 not really PAR1", "a damaged Parquet file: .*; write it again"),
        (b"PAR1 and no more", "it is truncated: .*; copy it again"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "other.parquet"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"other\.parquet: {message}"):
        read_parquet(path)


def test_a_column_that_is_there_twice_is_named(tmp_path: Path, make_table: MakeTable) -> None:
    table = make_table()
    pq.write_table(table.append_column("label", table["label"]), tmp_path / "twice.parquet")
    with pytest.raises(DataError, match=r"twice\.parquet: has the column label more than once"):
        read_path(tmp_path / "twice.parquet")


def test_a_folder_of_parts_is_one_table(tmp_path: Path, make_table: MakeTable) -> None:
    table = make_table()
    for index, (start, length) in enumerate([(0, 5), (5, 4), (9, 7)]):
        pq.write_table(table.slice(start, length), tmp_path / f"part-{index}.parquet")
    (tmp_path / "_metadata").write_bytes(b"x")
    (tmp_path / "._part-0.parquet").write_bytes(b"x")
    write_parquet(table, tmp_path.parent / "whole.parquet")
    corpus = read_path(tmp_path)
    assert corpus.fingerprint == read_path(tmp_path.parent / "whole.parquet").fingerprint
    assert corpus.warnings[0].startswith(
        "read from the folder's Parquet files: part-0.parquet, part-1"
    )
    other = table.set_column(4, "text", pa.array([[1.0]] * 16))
    pq.write_table(other, tmp_path / "part-3.parquet")
    with pytest.raises(
        DataError, match=r"its Parquet files differ: .*; give them the same columns"
    ):
        read_path(tmp_path)


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary_view()])
def test_byte_strings_are_text_where_they_are_utf_8(
    tmp_path: Path, make_table: MakeTable, kind: pa.DataType
) -> None:
    table = make_table()
    texts = [f"é{index}" for index in range(16)]
    for encoding in ("utf-8", "latin-1"):
        column = pa.array([text.encode(encoding) for text in texts], kind)
        pq.write_table(table.set_column(4, "text", column), tmp_path / f"{encoding}.parquet")
    assert sorted(read_path(tmp_path / "utf-8.parquet").table["text"].to_pylist()) == sorted(texts)
    with pytest.raises(DataError, match="column text: its bytes are not UTF-8; keep to string"):
        read_path(tmp_path / "latin-1.parquet")


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_torn_files_are_refused(tmp_path: Path, make_table: MakeTable, share: float) -> None:
    path = tmp_path / "torn.parquet"
    write_parquet(make_table(), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match=r"\A[^\n]*torn\.parquet: it is truncated: [^\n]*\Z"):
        read_parquet(path)


def test_damaged_pages_are_refused(tmp_path: Path, make_table: MakeTable) -> None:
    path = tmp_path / "damaged.parquet"
    write_parquet(make_table(), path)
    content = bytearray(path.read_bytes())
    content[4:200] = bytes(196)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"damaged\.parquet: a damaged Parquet file: "):
        read_parquet(path)


def test_folder_and_unreadable_place_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"a folder without train_sent_emo\.csv and without \.parquet"
    ):
        read_path(tmp_path)
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read_parquet(tmp_path)


def test_nothing_is_left_of_a_file_that_cannot_be_written(
    tmp_path: Path, make_table: MakeTable
) -> None:
    (tmp_path / "file").write_text("in the way")
    for parent, reason in (("none", "does not exist"), ("file", "is not a folder")):
        place = tmp_path / parent / "x.parquet"
        message = f"{place}: cannot be written: the folder {place.parent} {reason}; make it"
        with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
            write_parquet(make_table(), place)
    (tmp_path / "folder").mkdir()
    for place in (tmp_path / "folder", Path(), Path("/")):
        with pytest.raises(DataError, match="cannot be written: it is a folder; name a file in it"):
            write_parquet(make_table(), place)
    with pytest.raises(DataError, match="cannot be written: File name too long; choose another"):
        write_parquet(make_table(), tmp_path / ("x" * 250))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_only_parquet_files_are_replaced(tmp_path: Path, make_table: MakeTable) -> None:
    for name in ("notes.txt", "empty.parquet", "features.pkl"):
        content = b"" if name.startswith("empty") else b"precious"
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=f"{name}: is there already and is not a Parquet file"):
            write_parquet(make_table(), tmp_path / name)
        assert (tmp_path / name).read_bytes() == content
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="pipe: is there already and is not a Parquet file"):
        write_parquet(make_table(), tmp_path / "pipe")
    for seed in (0, 1):  # a name may end as it likes
        write_parquet(make_table(text=[f"{seed}"] * 16), tmp_path / "new.data")
        assert read_parquet(tmp_path / "new.data")["text"][0].as_py() == f"{seed}"


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("mine.csv", "mine.csv --out mine.parquet"),
        ("my features.pkl", "'my features.pkl' --out 'my features.parquet'"),
    ],
)
def test_a_file_of_another_kind_is_sent_to_convert(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_text("split,dialogue_id,utterance_id,speaker,label\n")
    message = f"{name}: not a Parquet file; make one of it: magtkd data convert {command}"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        read_path(name)


def test_mosi(data_folder: Path) -> None:
    corpus = read_path(data_folder / "mosi" / "mosi.parquet")
    assert corpus.table.num_rows == 2199
    assert corpus.labels == ("negative", "positive")
    dialogues = corpus.table.group_by("split").aggregate([("dialogue_id", "count_distinct")])
    counts = {row["split"]: row["dialogue_id_count_distinct"] for row in dialogues.to_pylist()}
    assert counts == {"train": 62, "dev": 10, "test": 21}
    assert pc.count_distinct(corpus.table["speaker"]).as_py() == 93
    assert corpus.warnings == ("video_features: 32 of 100 columns are constant on train",)


def test_a_file_of_a_release_is_sent_to_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command that is suggested is not refused."""
    monkeypatch.chdir(tmp_path)
    Path("meld").mkdir()
    header = "Sr No.,Utterance,Speaker,Emotion,Dialogue_ID,Utterance_ID,StartTime,EndTime\n"
    row = '1,Hi,Joey,joy,0,0,"00:00:01,0","00:00:02,0"\n'
    for split in ("train", "dev", "test"):
        Path("meld", f"{split}_sent_emo.csv").write_text(header + row)
    with pytest.raises(DataError, match="of a release, give the folder: magtkd data") as raised:
        read_path("meld/train_sent_emo.csv")
    command = str(raised.value).rpartition(": magtkd ")[2]
    assert run_app(app, command.split()) == 0
    assert read_path("meld/table.parquet").table.num_rows == 3
