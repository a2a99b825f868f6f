from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from magtkd.config import DataConfig
from magtkd.data import make_corpus, prepare, read_metadata
from magtkd.data.formats.conversion import Options
from magtkd.data.formats.feature_pickles import find_features, read_features
from magtkd.data.formats.first_stage import first_stage_files
from magtkd.data.formats.labels import ALPHABETICAL
from magtkd.errors import DataError

LENGTHS = {0: 3, 4: 7}
WIDTHS = {"text": 7, "audio": 5, "video": 3, "audio_kd": 5, "video_kd": 3}
Write = Callable[..., Path]


def make_stage(seed: int, num_labels: int = 7) -> dict[str, Any]:
    generator = np.random.default_rng(seed)
    vectors = {
        name: {
            key: list(generator.standard_normal((length, width)).astype("f4"))
            for key, length in LENGTHS.items()
        }
        for name, width in WIDTHS.items()
    }
    return {
        **vectors,
        "speakers": {key: [index % 3 for index in range(n)] for key, n in LENGTHS.items()},
        "labels": {key: [-index % num_labels for index in range(n)] for key, n in LENGTHS.items()},
        "vids": [4, 0],
        "dia2utt": {key: [2 * index for index in range(n)] for key, n in LENGTHS.items()},
    }


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def run(**stages: Any) -> Path:
        for split, stage in stages.items():
            path = tmp_path / f"first_stage_{split}_features.pkl"
            path.write_bytes(pickle.dumps(stage))
        return tmp_path

    return run


@pytest.mark.parametrize("distilled", [True, False])
def test_three_files(write: Write, distilled: bool) -> None:
    stages = {split: make_stage(seed) for seed, split in enumerate(("train", "dev", "test"))}
    source = write(**stages)
    conversion = read_features(source, Options(distilled=distilled))
    corpus = make_corpus(conversion.table, "x")
    rows = corpus.table.to_pylist()
    assert len(rows) == conversion.num_read == 30
    for row in rows:
        stage = stages[row["split"]]
        key = int(row["dialogue_id"].removeprefix(f"{row['split']}/"))
        place = row["utterance_id"] // 2
        for modality in ("text", "audio", "video"):
            name = f"{modality}_kd" if distilled and modality != "text" else modality
            assert np.array_equal(row[f"{modality}_features"], stage[name][key][place])
        assert row["label"] == ALPHABETICAL["meld"][stage["labels"][key][place]]
        assert row["speaker"] == f"S{place % 3 + 1}"
    assert "30 of 30 utterances have no text" in corpus.warnings
    students = "taught" if distilled else "learned alone"
    assert students in conversion.notes[1]
    assert find_features(source) == ", ".join(
        f"first_stage_{split}_features.pkl" for split in ("dev", "test", "train")
    )


def test_published_numbers_of_speakers_come_back(write: Write) -> None:
    """Also those that train lacks, and 11 after 2 though its name sorts before."""
    numbers = {"train": [0, 11, 2], "dev": [1, 0, 0], "test": [303, 2, 11]}
    stages = {split: make_stage(seed) for seed, split in enumerate(numbers)}
    for split, stage in stages.items():
        stage["speakers"] = {0: numbers[split], 4: [0] * 7}
    corpus = make_corpus(read_features(write(**stages), Options()).table, "x")
    prepared = prepare(corpus, DataConfig(speakers="published"), 0)
    rows = prepared.to_pylist()
    for split, expected in numbers.items():
        there = [row["speaker_index"] for row in rows if row["dialogue_id"] == f"{split}/0"]
        assert there == expected
    assert {row["speaker_index"] for row in rows} == {0, 1, 2, 11, 303}
    assert read_metadata(prepared).num_speakers == 304


def test_one_file_is_of_the_split_in_its_name(write: Write) -> None:
    folder = write(train=make_stage(0, 6))
    path = folder / "first_stage_train_features.pkl"
    table = read_features(path, Options()).table
    assert set(table["split"].to_pylist()) == {"train"}
    assert set(table["label"].to_pylist()) == set(ALPHABETICAL["iemocap"])
    path.rename(folder / "valid.features.pkl")
    table = read_features(folder / "valid.features.pkl", Options()).table
    assert set(table["split"].to_pylist()) == {"dev"}


def test_a_file_without_the_students_that_were_taught(write: Write) -> None:
    stage = {name: value for name, value in make_stage(0).items() if not name.endswith("_kd")}
    source = write(train=stage)
    with pytest.raises(DataError, match="train lacks audio_kd; choose --no-distilled"):
        read_features(source, Options())
    assert read_features(source, Options(distilled=False)).table.num_rows == 10


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("speakers", {0: [1, 2, 3]}, "conversation 4 has no speakers"),
        ("labels", {}, "conversation 4 has no labels"),
        ("dia2utt", {0: [1], 4: list(range(7))}, r"conversation 0 has as many .* as \(3, 3, 1\)"),
        ("dia2utt", {0: ["a", 2, 3], 4: list(range(7))}, "dia2utt has 'a', which is no whole num"),
        ("vids", [0, 4, 0], "vids has a conversation more than once"),
        ("vids", [[0]], "vids is no list of conversations"),
        ("audio_kd", {}, r"conversation 4: audio_kd features have the shape \(0,\)"),
    ],
)
def test_fields_that_do_not_fit(write: Write, name: str, value: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_features(write(train=make_stage(0) | {name: value}), Options())


def test_other_files(write: Write) -> None:
    source = write(train=make_stage(0), test={"text": 1})
    with pytest.raises(DataError, match=r"test_features\.pkl: not the first stage's: it needs tex"):
        read_features(source, Options())
    wider = make_stage(1)
    wider["text"] = {key: [row[:6] for row in rows] for key, rows in wider["text"].items()}
    with pytest.raises(DataError, match=r"text is as wide as \[7, 6\]"):
        read_features(write(train=make_stage(0), test=wider), Options())
    (source / "first_stage_test.v2.pkl").write_bytes(b"")
    with pytest.raises(DataError, match=r"_features\.pkl and first_stage_test\.v2\.pkl: keep one"):
        first_stage_files(source)
