from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

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
    with pytest.raises(DataError, match=r"none\.parquet: there is no such file; set data\.path"):
        read_path(tmp_path / "none.parquet")


@pytest.mark.parametrize("content", [b"", b"split,label\n", b"PAR1 not really PAR1"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.parquet"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"other\.parquet: not a (readable )?Parquet file"):
        read_parquet(path)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_torn_files_are_refused(tmp_path: Path, make_table: MakeTable, share: float) -> None:
    path = tmp_path / "torn.parquet"
    write_parquet(make_table(), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match=r"\A[^\n]*torn\.parquet: not a [^\n]*\Z"):
        read_parquet(path)


def test_damaged_pages_are_refused(tmp_path: Path, make_table: MakeTable) -> None:
    path = tmp_path / "damaged.parquet"
    write_parquet(make_table(), path)
    content = bytearray(path.read_bytes())
    content[4:200] = bytes(196)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"damaged\.parquet: not a "):
        read_parquet(path)


def test_folder_and_unreadable_place_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a folder without train_sent_emo\.csv; set data\.path"):
        read_path(tmp_path)
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read_parquet(tmp_path)


def test_nothing_is_left_of_a_file_that_cannot_be_written(
    tmp_path: Path, make_table: MakeTable
) -> None:
    (tmp_path / "file").write_text("in the way")
    for place in (tmp_path / "none" / "x.parquet", tmp_path / "file" / "x.parquet"):
        with pytest.raises(DataError, match=r"x\.parquet: cannot be written: .*; choose another"):
            write_parquet(make_table(), place)
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="cannot be written: Is a directory"):
        write_parquet(make_table(), tmp_path / "folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_mosi(data_folder: Path) -> None:
    corpus = read_path(data_folder / "mosi" / "mosi.parquet")
    assert corpus.table.num_rows == 2199
    assert corpus.labels == ("negative", "positive")
    dialogues = corpus.table.group_by("split").aggregate([("dialogue_id", "count_distinct")])
    counts = {row["split"]: row["dialogue_id_count_distinct"] for row in dialogues.to_pylist()}
    assert counts == {"train": 62, "dev": 10, "test": 21}
    assert pc.count_distinct(corpus.table["speaker"]).as_py() == 93
    assert corpus.warnings == ("video_features: 32 of 100 columns are constant on train",)
