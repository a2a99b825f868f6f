"""Releases of text: JSON of DialogXL, SPCL and DAG-ERC; DailyDialog; MELD_Dyadic."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from magtkd.data import make_corpus, read_path
from magtkd.data.formats.conversion import Options
from magtkd.data.formats.convert import convert, find_format
from magtkd.data.formats.dailydialog import LABELS, read_dailydialog
from magtkd.data.formats.erc_json import read_erc_json
from magtkd.errors import DataError

# --- JSON -------------------------------------------------------------------------------------


def said(text: str, speaker: str, label: str | None, **more: Any) -> dict[str, Any]:
    return {"text": text, "speaker": speaker, **({"label": label} if label else {}), **more}


CONVERSATIONS = [
    [said("No.", "F", "sad"), said("Why?", "M", None), said("It\x92s so.", "F", "Angry")],
    [said("Yes.", "M", "angry")],
]


def write(folder: Path, ending: str = ".json", **by_split: Any) -> Path:
    for split, content in by_split.items():
        (folder / f"{split}_data{ending}").write_text(json.dumps(content), encoding="utf-8")
    return folder


def test_conversations_of_json(tmp_path: Path) -> None:
    source = write(tmp_path, train=CONVERSATIONS, dev=CONVERSATIONS[1:], test=CONVERSATIONS)
    assert find_format(source) == "erc-json"
    summary = convert(source, tmp_path / "a.parquet")
    assert summary.facts()["read"] == summary.facts()["written"] == 9
    assert summary.facts()["unlabelled"] == {"train": 1, "dev": 0, "test": 1}
    assert summary.corpus.labels == ("angry", "sad")
    row = summary.conversion.table.to_pylist()[2]
    assert row == {
        "split": "train",
        "dialogue_id": "train/0",
        "utterance_id": 2,
        "speaker": "F",
        "text": "It’s so.",
        "label": "angry",
    }
    dropped = convert(source, tmp_path / "b.parquet", Options(unlabelled="drop"))
    assert dropped.facts()["dropped"] == {"without a label": 2}


def test_features_of_json(tmp_path: Path) -> None:
    content = [[said("No.", "F", "sad", cls=[1.5, 2]), said("Why?", "M", None, cls=[0, 1])]]
    source = write(tmp_path, "_roberta_v2.json.feature", train=content)
    conversion = read_erc_json(source, Options())
    assert conversion.table["text_features"].to_pylist() == [[1.5, 2.0], [0.0, 1.0]]
    assert conversion.notes == ["no dev file", "no test file"]
    assert make_corpus(conversion.table, "x").labels == ("sad",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "no list of conversations, which are lists; take the file as it was distributed"),
        ([{}], "no list of conversations"),
        ([[1]], "conversation 0, utterance 0: it is no object"),
        ([[said("a", "b", "c"), {"speaker": "b"}]], "utterance 1: text: None is not text"),
        ([[{"text": "a", "speaker": "b", "label": 3}]], "label: 3 is not text"),
        ([[said("a", "b", "c", cls=[1]), said("a", "b", "c")]], "cls: not every utterance has"),
    ],
)
def test_other_json(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_erc_json(write(tmp_path, train=content), Options())


@pytest.mark.parametrize("raw", [b"", b"[", b"\xff", b"[" * 99999])
def test_what_is_no_json(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "train_data.json").write_bytes(raw)
    with pytest.raises(DataError, match=r"train_data\.json: not JSON; take the file as it was"):
        read_erc_json(tmp_path, Options())


# --- DailyDialog ------------------------------------------------------------------------------


def daily(folder: Path, texts: str, labels: str) -> Path:
    for name in ("train", "validation", "test"):
        (folder / name).mkdir()
        (folder / name / f"dialogues_{name}.txt").write_text(texts, encoding="utf-8")
        (folder / name / f"dialogues_emotion_{name}.txt").write_text(labels)
    return folder


def test_dailydialog(tmp_path: Path) -> None:
    texts = "Hi . __eou__ Oh ! __eou__ Bye . __eou__\nOdd . __eou__\nOn’t . __eou__\n"
    source = daily(tmp_path, texts, "0 6 4 \n0 1 \n5 \n")
    assert find_format(source) == "dailydialog"
    conversion = read_dailydialog(source, Options())
    rows = conversion.table.to_pylist()
    assert [row["label"] for row in rows[:4]] == ["no emotion", "surprise", "happiness", "sadness"]
    assert [row["speaker"] for row in rows[:4]] == ["A", "B", "A", "A"]
    assert [row["dialogue_id"] for row in rows[3:5]] == ["train/2", "dev/0"]
    assert conversion.num_read == 15
    assert conversion.dropped == {"labels that do not fit their conversation": 3}
    assert set(make_corpus(conversion.table, "x").labels) <= set(LABELS)


@pytest.mark.parametrize(
    ("texts", "labels", "message"),
    [
        ("a __eou__", "7", "line 1: '7' is no label, which are 0 to 6"),
        ("a __eou__", "x", "line 1: 'x' is no label"),
        ("a __eou__\nb __eou__", "1", "1 lines for 2 conversations; take the files as they were"),
    ],
)
def test_wrong_dailydialog(tmp_path: Path, texts: str, labels: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_dailydialog(daily(tmp_path, texts, labels), Options())


def test_a_part_of_dailydialog(tmp_path: Path) -> None:
    daily(tmp_path, "a __eou__", "1")
    (tmp_path / "test/dialogues_test.txt").unlink()
    with pytest.raises(
        DataError, match=r"dialogues_test\.txt: cannot be read: No such file.*unpack"
    ):
        read_dailydialog(tmp_path, Options())


# --- MELD_Dyadic ------------------------------------------------------------------------------


def test_dyadic_meld_has_no_clips(tmp_path: Path) -> None:
    header = "Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Old_Dialogue_ID,"
    header += "Old_Utterance_ID,Season,Episode,StartTime,EndTime"
    row = 'No,Ross,joy,positive,125,3,0,0,4,7,"0:20:57,256","00:21:00,049"'
    for split in ("train", "dev", "test"):
        (tmp_path / f"{split}_sent_emo_dya.csv").write_text(f"{header}\n{row}\n")
    (tmp_path / "train_splits").mkdir()
    assert find_format(tmp_path) == "meld"
    summary = convert(tmp_path, tmp_path / "a.parquet")
    assert summary.facts()["written"] == 3
    assert "audio_path" not in summary.corpus.table.column_names
    assert len(summary.conversion.notes) == 1
    assert read_path(tmp_path / "a.parquet").table["start"][0].as_py() == 1257.256
