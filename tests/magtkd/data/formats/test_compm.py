"""CoMPM's text files."""

from __future__ import annotations

from pathlib import Path

import pytest

from magtkd.data import make_corpus
from magtkd.data.formats.compm import find_compm, read_compm
from magtkd.data.formats.conversion import Options
from magtkd.errors import DataError

HEADER = "Speaker\tUtterance\tEmotion\tSentiment\n\n"


def write(folder: Path, dataset: str, text: str, header: str = "") -> Path:
    for split in ("train", "dev", "test"):
        (folder / f"{dataset}_{split}.txt").write_text(header + text)
    return folder


@pytest.mark.parametrize(
    ("dataset", "header", "text", "labels"),
    [
        (
            "MELD",
            HEADER,
            "Ross\tHi!\tjoy\tpositive\nRachel\tOh.\tsadness\tnegative\n\nRoss\tNo.\tanger\tnegative\n",
            ["joy", "sadness", "anger"],
        ),
        (
            "EMORY",
            "",
            "Ross Geller\tHi!\tJoyful\nRachel Green\tOh.\tScared\n\n\nRoss Geller\tNo.\tMad\n\n",
            ["joyful", "scared", "mad"],
        ),
        (
            "iemocap",
            "",
            "F\tHi!\tneu\nM\tOh.\tfru\n\nF\tNo.\tang\n",
            ["neutral", "frustrated", "angry"],
        ),
        (
            "dailydialog",
            "",
            "0\tHi!\tneutral\n1\tOh.\tsadness\n\n0\tNo.\thappiness\n",
            ["no emotion", "sadness", "happiness"],
        ),
    ],
)
def test_what_each_data_set_has(
    tmp_path: Path, dataset: str, header: str, text: str, labels: list[str]
) -> None:
    folder = write(tmp_path, dataset, text, header)
    assert find_compm(folder) is not None
    conversion = read_compm(folder, Options())
    train = make_corpus(conversion.table, "x").table.slice(0, 3)
    assert train["dialogue_id"].to_pylist() == ["train/0", "train/0", "train/1"]
    assert train["utterance_id"].to_pylist() == [0, 1, 0]
    assert train["text"].to_pylist() == ["Hi!", "Oh.", "No."]
    assert train["label"].to_pylist() == labels
    assert conversion.num_read == 9


def test_a_text_with_tabs_and_windows_line_ends(tmp_path: Path) -> None:
    folder = write(tmp_path, "iemocap", "F\tOne\tand two.\tneu\r\n\r\nM\tOh.\tfru\r\n")
    table = read_compm(folder, Options()).table
    assert table["text"].to_pylist()[:2] == ["One and two.", "Oh."]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "Ross\tHi!\tjoyous\tpositive\n",
            r"MELD_train\.txt, line 3: emotion 'joyous' is none of neu",
        ),
        ("Ross\tjoy\tpositive\n", r"line 3: .* has no speaker, text and emotion separated by tabs"),
        ("one line\n", r"line 3: 'one line' has no speaker, text and emotion"),
    ],
)
def test_a_line_that_is_none(tmp_path: Path, text: str, message: str) -> None:
    folder = write(tmp_path, "MELD", text, HEADER)
    with pytest.raises(DataError, match=message):
        read_compm(folder, Options())


def test_two_data_sets_in_a_folder(tmp_path: Path) -> None:
    write(tmp_path, "MELD", "", HEADER)
    (tmp_path / "EMORY_train.txt").write_text("")
    with pytest.raises(DataError, match=r"EMORY_train\.txt|MELD_train\.txt"):
        find_compm(tmp_path)
    assert find_compm(tmp_path / "nothing") is None
