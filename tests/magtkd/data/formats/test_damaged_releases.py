"""Whatever is wrong with a release, a person reads one line."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magtkd.data.formats.conversion import Conversion, Options
from magtkd.data.formats.convert import FORMATS, convert
from magtkd.data.formats.feature_pickles import read_features
from magtkd.errors import DataError

KEYS = ("Ses01F_impro01", "Ses05M_script03_2")


def by_key(make: Callable[[int], Any]) -> dict[str, list[Any]]:
    return {key: [make(index) for index in range(2 + place)] for place, key in enumerate(KEYS)}


def vectors(width: int) -> dict[str, list[Any]]:
    return by_key(lambda index: np.full(width, index, "f4"))


TUPLE = (
    *(by_key(str), by_key(lambda _: "M"), by_key(lambda index: index + 3)),
    *(vectors(3) for _ in range(4)),
    *(vectors(2), vectors(4), by_key(str), [KEYS[0]], [KEYS[1]]),
)
STAGE = {
    **{name: vectors(3) for name in ("text", "audio", "video", "audio_kd", "video_kd")},
    **{"speakers": by_key(int), "labels": by_key(lambda index: index + 3)},
    **{"vids": [*KEYS], "dia2utt": by_key(int)},
}
atoms = (
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats() | st.text(max_size=3)
    | st.sampled_from(KEYS) | st.binary(max_size=3)
)  # fmt: skip
junk = st.recursive(
    atoms | st.sampled_from([np.ones((2, 3)), np.ones(()), np.zeros((0, 4)), np.array(["a"])]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.sampled_from(KEYS) | st.integers(), inner, max_size=3)
    ),
    max_leaves=6,
)


def read(folder: Path, content: Any) -> Conversion | None:
    path = folder / "features.pkl"
    path.write_bytes(pickle.dumps(content))
    with contextlib.suppress(DataError):
        return read_features(path, Options())
    return None


@pytest.mark.parametrize("content", [TUPLE, STAGE], ids=["tuple", "first stage"])
def test_sound_ones_are_read(tmp_path: Path, content: Any) -> None:
    conversion = read(tmp_path, content)
    assert conversion is not None
    assert conversion.table.num_rows == 5


@settings(max_examples=300)
@given(data=st.data())
def test_a_tuple_with_another_field(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    fields: list[Any] = [*TUPLE]
    place = data.draw(st.integers(0, len(fields) - 1))
    if isinstance(fields[place], dict) and data.draw(st.booleans()):
        fields[place] = {**fields[place], data.draw(st.sampled_from(KEYS)): data.draw(junk)}
    else:
        fields[place] = data.draw(junk)
    read(tmp_path_factory.getbasetemp(), tuple(fields))


def test_a_tuple_with_a_number_for_its_ids(tmp_path: Path) -> None:
    assert read(tmp_path, (*TUPLE[:10], np.ones(()), TUPLE[11])) is None


@settings(max_examples=300)
@given(data=st.data())
def test_a_first_stage_with_another_field(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(sorted(STAGE)))
    field = STAGE[name]
    value = data.draw(junk)
    if isinstance(field, dict) and data.draw(st.booleans()):
        value = {**field, data.draw(st.sampled_from(KEYS)): value}
    read(tmp_path_factory.getbasetemp(), STAGE | {name: value})


FILES = {
    "meld": {
        f"{split}_sent_emo.csv": "Utterance,Speaker,Emotion,Dialogue_ID,Utterance_ID,StartTime,"
        'EndTime\n"No, no",Ross,joy,3,1,"0:00:01,500","0:00:02,000"\n'
        for split in ("train", "dev", "test")
    },
    "iemocap": {
        "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt": "[6.2 - 8.2]\tSes01F_impro01_F000\tneu"
        "\t[2.5, 2.5, 2.5]\n",
        "Session1/dialog/transcriptions/Ses01F_impro01.txt": "Ses01F_impro01_F000 [6.2-8.2]: No.\n",
    },
    "media-csv": {
        "IEMOCAP_train.csv": "Dialogue_ID,Utterance,Speaker,Emotion,Wav_Path,Video_Path,Start_Time,"
        "End_Time\nSes01,No,F,hap,../a/b.wav,../a/b.avi,1.5,2.5\n",
        "a/b.wav": ".",
        "a/b.avi": ".",
    },
    "emorynlp": {
        f"emorynlp_{split}_final.csv": "Utterance,Speaker,Emotion,Scene_ID,Utterance_ID,Season,"
        "Episode\nNo,\"['Ross Geller']\",Sad,1,2,3,4\n"
        for split in ("train", "dev", "test")
    },
    "erc-json": {
        f"{split}_data_v1.json.feature": '[[{"text": "No", "speaker": "F", "label": "sad", '
        '"cls": [1.5, 2]}, {"text": "Yes", "speaker": "M", "cls": [0, 1]}]]'
        for split in ("train", "dev", "test")
    },
    "dailydialog": {
        f"{folder}/{file}_{folder}.txt": text
        for folder in ("train", "validation", "test")
        for file, text in {
            "dialogues": "No . __eou__ Why ? __eou__\n",
            "dialogues_emotion": "0 6 \n",
        }.items()
    },
    "table": {
        "a.csv": "split,dialogue_id,utterance_id,speaker,label,text_features\n"
        'train,d,1,s,l,"[1.5, 2]"\n'
    },
}


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=60)
@given(data=st.data())
def test_text_files_with_other_bytes(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject
) -> None:
    folder = tmp_path_factory.getbasetemp() / f"damaged-{name}"
    for file, text in FILES[name].items():
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    source = folder / "a.csv" if name == "table" else folder
    options = Options(on_missing="keep")
    assert FORMATS[name].read(source, options).table.num_rows > 0
    file = data.draw(st.sampled_from(sorted(FILES[name])))
    content = bytearray((folder / file).read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        place = data.draw(st.integers(0, len(content)))
        content[place : place + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
    (folder / file).write_bytes(content)
    with contextlib.suppress(DataError):
        convert(source, folder.parent / "out.parquet", options, name)
