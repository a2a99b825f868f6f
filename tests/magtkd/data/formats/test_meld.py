from __future__ import annotations

import re
from pathlib import Path

import pyarrow.compute as pc
import pytest

from magtkd.config import DataConfig
from magtkd.data import SPLITS, prepare, read_metadata, read_path
from magtkd.data.formats.meld import read_meld
from magtkd.errors import DataError

HEADER = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,StartTime,EndTime\r\n"
LINE = '1,"You\x92ve, er",Phoebe Sr,{label},positive,{dialogue},3,"{start}","0:21:00,049"\r\n'


def _write(
    folder: Path, *, dialogue: str = "0", start: str = "00:20:57,256", label: str = "Joy "
) -> None:
    for split in SPLITS:
        line = LINE.format(dialogue=dialogue, start=start, label=label)
        (folder / f"{split}_sent_emo.csv").write_bytes((HEADER + line).encode("latin-1"))


def test_rows_are_read_and_repaired(tmp_path: Path) -> None:
    _write(tmp_path)
    table, warnings = read_meld(tmp_path)
    assert table.to_pylist()[1] == {
        "split": "dev",
        "dialogue_id": "dev/0",
        "utterance_id": 3,
        "speaker": "Phoebe Sr.",
        "text": "You’ve, er",
        "label": "joy",
        "start": 1257.256,
        "end": 1260.049,
    }
    assert warnings == ("3 texts had damaged characters, which were repaired",)


def test_broken_clips_are_named(tmp_path: Path) -> None:
    _write(tmp_path, dialogue="125", start="00:21:00,049")
    _, warnings = read_meld(tmp_path)
    assert "train dia125_utt3 (cannot be decoded); their text is kept" in warnings[1]
    assert warnings[2] == "3 utterances end no later than they start"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"label": "happyy"},
            r"train_sent_emo\.csv, line 2: Emotion: 'happyy' is none of neutral, surprise, fear, "
            r"sadness, joy, disgust, anger; correct it",
        ),
        ({"label": ""}, r"line 2: Emotion: '' is none of neutral"),
        ({"dialogue": "x"}, r"train_sent_emo\.csv, line 2: Dialogue_ID: 'x' is not a whole number"),
        ({"start": "soon"}, r"line 2: StartTime: 'soon' is not a time such as 00:20:57,256"),
    ],
)
def test_unreadable_values_are_refused(
    tmp_path: Path, values: dict[str, str], message: str
) -> None:
    _write(tmp_path, **values)
    with pytest.raises(DataError, match=message):
        read_meld(tmp_path)


def _break(folder: Path, old: str, new: str, num_rows: int = 3) -> None:
    """Rows like the first one in train's file, the first of them with something replaced."""
    _write(folder)
    path = folder / "train_sent_emo.csv"
    header, line = path.read_bytes().splitlines(keepends=True)
    broken = line.replace(old.encode(), new.encode())
    path.write_bytes(header + broken + line * num_rows)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (',3,"00:20:57,256","0:21:00,049"', "", r"line 2: has no Utterance_ID: is the row cut, or"),
        (', er"', ", er", r"line 2: has no Dialogue_ID: is the row cut, or a quote"),
        ('049"\r', "049\r", r"lines 2 to 3: EndTime: .* is not a time"),
        ("0,3,", "joy,0,3,", r"line 2: Dialogue_ID: 'joy' is not a whole number: is the row"),
    ],
)
def test_rows_that_are_cut_or_quotes_that_are_not_closed(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    _break(tmp_path, old, new)
    with pytest.raises(DataError, match=message):
        read_meld(tmp_path)


def test_a_quote_that_swallows_the_file(tmp_path: Path) -> None:
    _break(tmp_path, "You", "You", 0)
    path = tmp_path / "train_sent_emo.csv"
    path.write_bytes(path.read_bytes() + b'2,"' + b"Oh no.\r\n" * 20_000)
    with pytest.raises(DataError, match=r"line 3: not CSV: field larger .*: is the row cut"):
        read_meld(tmp_path)


def test_each_file_in_a_folder_of_its_split(tmp_path: Path) -> None:
    _write(tmp_path)
    flat = read_path(tmp_path).fingerprint
    for split in SPLITS:
        (tmp_path / split).mkdir()
        (tmp_path / f"{split}_sent_emo.csv").rename(tmp_path / split / f"{split}_sent_emo.csv")
    assert read_path(tmp_path).fingerprint == flat


def test_missing_files_and_columns_are_refused(tmp_path: Path) -> None:
    _write(tmp_path)
    (tmp_path / "dev_sent_emo.csv").write_text("Utterance,Speaker\n")
    with pytest.raises(DataError, match=r"dev_sent_emo\.csv: lacks the column Emotion"):
        read_path(tmp_path)
    (tmp_path / "dev_sent_emo.csv").unlink()
    with pytest.raises(
        DataError, match=r"dev_sent_emo\.csv: cannot be read: No .* MELD is a folder"
    ):
        read_path(tmp_path)


def test_files_without_rows_are_an_empty_table(tmp_path: Path) -> None:
    for split in SPLITS:
        (tmp_path / f"{split}_sent_emo.csv").write_text(HEADER)
    with pytest.raises(DataError, match="the table is empty"):
        read_path(tmp_path)


def test_meld(data_folder: Path) -> None:
    corpus = read_path(data_folder / "meld")
    table = corpus.table
    assert table.num_rows == 13_708
    assert pc.count_distinct(table["dialogue_id"]).as_py() == 1432
    assert len(corpus.labels) == 7
    assert not [
        text for text in table["text"].to_pylist() if re.search("[\x80-\xa0]|[a-z]\\?[a-z]", text)
    ]
    assert {"Phoebe Sr.", "Richard's Date"} < set(table["speaker"].to_pylist())
    assert "Phoebe Sr" not in table["speaker"].to_pylist()
    first = table.filter(pc.equal(table["dialogue_id"], "dev/0")).to_pylist()[0]
    assert (first["start"], first["end"]) == (1257.256, 1260.049)
    assert len([warning for warning in corpus.warnings if "test dia220_utt0" in warning]) == 1
    assert corpus.warnings[0].startswith("13 texts")
    metadata = read_metadata(prepare(corpus, DataConfig(path="meld"), seed=0))
    assert (metadata.modalities, metadata.num_speakers) == (("text",), 9)
