from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from magtkd.data import make_corpus
from magtkd.data.formats.conversion import Options
from magtkd.data.formats.emorynlp import LABELS, find_emorynlp, read_emorynlp
from magtkd.errors import DataError

HEADER = "Utterance,Speaker,Emotion,Scene_ID,Utterance_ID,Season,Episode,StartTime,EndTime"


def _write(folder: Path, split: str, *, number: str = "3", label: str = "") -> None:
    said = '"There\x92s a lot, really.","[\'Monica Geller\']"'
    times = '"00:00:55,014","00:00:59,018"'
    lines = [
        f"{said},{label or name.title()},4,{number}{index},1,2,{times}"
        for index, name in enumerate(LABELS)
    ]
    last = 'What?,"[\'Ross Geller\', ""Paul O\'Brien""]",Neutral,5,1,1,2,NaN,'
    text = "\n".join([HEADER, *lines, last])
    (folder / f"emorynlp_{split}_final.csv").write_bytes(text.encode("latin-1"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for split in ("train", "dev", "test"):
        _write(tmp_path, split)
    return tmp_path


def test_rows(folder: Path) -> None:
    conversion = read_emorynlp(folder, Options())
    rows = conversion.table.to_pylist()
    assert rows[0] == {
        "split": "train",
        "dialogue_id": "train/s01e02c04",
        "utterance_id": 30,
        "speaker": "Monica Geller",
        "text": "There’s a lot, really.",
        "label": "joyful",
        "start": 55.014,
        "end": 59.018,
    }
    assert rows[7]["speaker"] == "Ross Geller & Paul O'Brien"
    assert rows[7]["start"] is rows[7]["end"] is None
    assert conversion.num_read == len(rows) == 24
    assert conversion.notes == [
        "3 utterances have no times that can be read",
        "no clips: no emorynlp_train_splits",
        "21 texts had damaged characters, which were repaired",
    ]
    assert make_corpus(conversion.table, "x").labels == LABELS
    names = ", ".join(f"emorynlp_{split}_final.csv" for split in ("dev", "test", "train"))
    assert find_emorynlp(folder) == names


def test_clips(folder: Path, put_clip: Callable[[Path], None]) -> None:
    for split in ("train", "dev", "test"):
        for place in [*(f"sc4_utt3{index}" for index in range(7)), "sc5_utt1"]:
            put_clip(folder / f"emorynlp_{split}_splits/sea1_ep2_{place}.mp4")
    table = read_emorynlp(folder, Options()).table
    assert table["video_path"][0].as_py() == "emorynlp_train_splits/sea1_ep2_sc4_utt30.mp4"
    (folder / "emorynlp_dev_splits/sea1_ep2_sc5_utt1.mp4").unlink()
    with pytest.raises(DataError, match=r"1 of 24 utterances lack a file: dev sea1_ep2_sc5_utt1"):
        read_emorynlp(folder, Options())
    assert read_emorynlp(folder, Options(on_missing="drop")).table.num_rows == 23


def test_damage_is_refused(folder: Path) -> None:
    _write(folder, "dev", number="x")
    with pytest.raises(DataError, match=r"dev_final\.csv, line 2: Utterance_ID: 'x0' is not a wh"):
        read_emorynlp(folder, Options())
    _write(folder, "dev", label="Bored")
    with pytest.raises(DataError, match="Emotion: 'Bored' is none of joyful, mad, neutral"):
        read_emorynlp(folder, Options())
    (folder / "emorynlp_dev_final.csv").rename(folder / "emorynlp_test.csv")
    with pytest.raises(DataError, match=r"emorynlp_test_final\.csv and emorynlp_test\.csv: keep"):
        read_emorynlp(folder, Options())
    (folder / "emorynlp_test.csv").unlink()
    with pytest.raises(DataError, match=r"lacks emorynlp_dev_final\.csv; complete the release"):
        read_emorynlp(folder, Options())
