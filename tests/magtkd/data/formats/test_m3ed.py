"""M3ED's annotations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from magtkd.data import make_corpus
from magtkd.data.formats.conversion import Options
from magtkd.data.formats.m3ed import find_m3ed, read_m3ed
from magtkd.errors import DataError


def utterance(speaker: str, text: str, emotion: str | None) -> dict[str, Any]:
    return {
        "StartTime": "00:01:02.000",
        "EndTime": "00:01:03.000",
        "Text": text,
        "Speaker": speaker,
        "EmoAnnotation": {"EmoAnnotator1": "Happy", "final_main_emo": emotion},
    }


def write(folder: Path, shows: dict[str, Any] | None = None, **lists: str) -> Path:
    conversation = {
        "SpeakerInfo": {"A": {"Name": "Li"}, "B": {"Name": "Wang"}},
        "Dialog": {
            "A_one_1": utterance("A", "你好", "Happy"),
            "B_one_2": utterance("B", "不", "Anger"),
            "A_one_3": utterance("A", "…", ""),
        },
    }
    if shows is None:
        shows = {name: {f"{name}_1": conversation} for name in ("one", "two", "three")}
    (folder / "splitInfo").mkdir()
    (folder / "annotation.json").write_text(json.dumps(shows), encoding="utf-8")
    for split, names in ({"train": "one", "val": "two", "test": "three"} | lists).items():
        (folder / "splitInfo" / f"movie_list_{split}.txt").write_text(names)
    return folder


def test_conversations_speakers_and_main_emotions(tmp_path: Path) -> None:
    folder = write(tmp_path)
    assert find_m3ed(folder) == "annotation.json"
    conversion = read_m3ed(folder, Options())
    table = make_corpus(conversion.table, "x").table.slice(0, 3)
    assert table["split"].to_pylist() == ["train"] * 3
    assert table["dialogue_id"].to_pylist() == ["one_1"] * 3
    assert table["speaker"].to_pylist() == ["one/Li", "one/Wang", "one/Li"]
    assert table["text"].to_pylist() == ["你好", "不", "…"]
    assert table["label"].to_pylist() == ["happy", "anger", None]
    assert conversion.num_read == 9


@pytest.mark.parametrize(
    ("shows", "lists", "message"),
    [
        ({"four": {}}, {}, r"annotation\.json: four: is in no list of splitInfo"),
        (None, {"val": "two one"}, r"movie_list_val\.txt: one is in train too; a show is in one"),
        ([], {}, r"annotation\.json: \[\] is no mapping of names"),
        ({"one": {"x": 3}}, {}, r"one: x: 3 is no mapping of names"),
        (
            {"one": {"x": {"Dialog": {"u": utterance("A", "a", "Glad")}}}},
            {},
            r"one: x: u: final_main_emo: 'Glad' is none of anger, disgust",
        ),
    ],
)
def test_a_release_that_is_damaged(
    tmp_path: Path, shows: Any, lists: dict[str, str], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read_m3ed(write(tmp_path, shows, **lists), Options())


def test_what_is_not_there(tmp_path: Path) -> None:
    assert find_m3ed(tmp_path) is None
    write(tmp_path)
    (tmp_path / "splitInfo" / "movie_list_test.txt").unlink()
    with pytest.raises(DataError, match=r"movie_list_test\.txt: cannot be read"):
        read_m3ed(tmp_path, Options())
    (tmp_path / "annotation.json").write_text("{")
    with pytest.raises(DataError, match=r"movie_list_test|not JSON"):
        read_m3ed(tmp_path, Options())
