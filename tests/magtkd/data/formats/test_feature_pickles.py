from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from magtkd.config import DataConfig
from magtkd.data import make_corpus, prepare, read_metadata
from magtkd.data.columns import feature_matrix
from magtkd.data.formats.conversion import Conversion, Options
from magtkd.data.formats.feature_pickles import TEXT_CHOICES, find_features, read_features
from magtkd.data.formats.labels import ORDERS
from magtkd.errors import DataError

LENGTHS = {"Ses01F_impro01": 3, "Ses02M_impro02": 6, "Ses05M_script03_2": 2, "Ses05F_impro04": 1}
TRAIN, TEST = ["Ses02M_impro02", "Ses01F_impro01"], ["Ses05M_script03_2"]
LABELS = {name: [5, 0, 2, 1, 3, 4][:length] for name, length in LENGTHS.items()}
MELD_LABELS = {name: [6, *labels[1:]] for name, labels in LABELS.items()}
Read = Callable[..., Conversion]


def features(width: int, seed: int) -> dict[str, Any]:
    generator = np.random.default_rng(seed)
    return {
        name: list(generator.standard_normal((length, width)).astype("f4"))
        for name, length in LENGTHS.items()
    }


IDS = {name: [f"{name}_{index}" for index in range(n)] for name, n in LENGTHS.items()}
SEXES = {name: ["M", "F", "M", "M", "F", "F"][:n] for name, n in LENGTHS.items()}
ONE_HOT = {name: list(np.eye(9)[:n]) for name, n in LENGTHS.items()}
SENTENCES = {name: ["Oh, no.", "Café?", *"abcd"][:n] for name, n in LENGTHS.items()}
TEXTS = [features(7, seed) for seed in range(4)]
AUDIO = features(5, 4)
VIDEO = {name: np.stack(rows) for name, rows in features(3, 5).items()}
SENTIMENTS = {name: [0] * n for name, n in LENGTHS.items()}
DEV = ["Ses05F_impro04"]
MEDIA = (AUDIO, VIDEO, SENTENCES, TRAIN, TEST)
SDT_IEMOCAP = (IDS, SEXES, LABELS, *TEXTS, *MEDIA)
LAYOUTS: dict[str, tuple[tuple[Any, ...], str]] = {
    "SDT's IEMOCAP": (SDT_IEMOCAP, "SDT's layout of 12 fields"),
    "SDT's MELD": ((IDS, ONE_HOT, MELD_LABELS, *TEXTS, *MEDIA, DEV), "SDT's layout of 13"),
    "SDT's MELD, sentiments": (
        (IDS, ONE_HOT, MELD_LABELS, *TEXTS, *MEDIA, SENTIMENTS),
        "SDT's layout of 13",
    ),
    "MMGCN's IEMOCAP": ((IDS, SEXES, LABELS, TEXTS[0], *MEDIA), "MMGCN's layout of 9"),
    "MMGCN's MELD": (
        (IDS, ONE_HOT, MELD_LABELS, TEXTS[0], *MEDIA, DEV),
        "MMGCN's layout of 10",
    ),
    "COSMIC's IEMOCAP": (
        (SEXES, LABELS, *TEXTS, SENTENCES, TRAIN, TEST, DEV),
        "COSMIC's layout of 10",
    ),
    "COSMIC's MELD": (
        [ONE_HOT, MELD_LABELS, SENTIMENTS, *TEXTS, SENTENCES, set(TRAIN), TEST, DEV],
        "COSMIC's layout of 11",
    ),
}


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Reads a tuple of features from a file."""

    def run(content: Any, **options: Any) -> Conversion:
        path = tmp_path / "features.pkl"
        path.write_bytes(pickle.dumps(content, 2))
        assert find_features(path) == "a pickle"
        return read_features(path, Options(**options))

    return run


def changed(content: tuple[Any, ...], place: int, value: Any) -> tuple[Any, ...]:
    return (*content[:place], value, *content[place + 1 :])


def without(field: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in field.items() if key != name}


@pytest.mark.parametrize("name", LAYOUTS)
def test_each_layout(read: Read, name: str) -> None:
    content, note = LAYOUTS[name]
    conversion = read(content)
    corpus = make_corpus(conversion.table, name)
    assert any(text.startswith(note) for text in conversion.notes)
    order = ORDERS["meld" if "MELD" in name else "iemocap"]
    labels = LABELS if "IEMOCAP" in name else MELD_LABELS
    rows = corpus.table.to_pylist()
    for row in rows:
        assert row["label"] == order[labels[row["dialogue_id"]][row["utterance_id"]]]
        assert row["text"] == SENTENCES[row["dialogue_id"]][row["utterance_id"]]
        assert (row["split"] == "train") == (row["dialogue_id"] in TRAIN)
        for field, column in ((TEXTS[0], "text"), (AUDIO, "audio"), (VIDEO, "video")):
            if f"{column}_features" in row:
                wanted = field[row["dialogue_id"]][row["utterance_id"]]
                assert np.array_equal(row[f"{column}_features"], wanted)
    speakers = {row["speaker"] for row in rows if row["dialogue_id"] == "Ses01F_impro01"}
    assert speakers == ({"Ses01_M", "Ses01_F"} if "IEMOCAP" in name else {"S1", "S2", "S3"})
    is_audible = "COSMIC" not in name
    assert ("audio_features" in corpus.table.column_names) == is_audible
    has_dev = content[-1] is DEV
    assert ("dev" in {row["split"] for row in rows}) == has_dev
    assert conversion.num_read == 12
    assert conversion.dropped["in no split"] == (0 if has_dev else 1)


def test_dev_that_is_in_train_too(read: Read) -> None:
    content = (IDS, ONE_HOT, MELD_LABELS, *TEXTS, *MEDIA, {TRAIN[1]})
    conversion = read(content)
    splits = dict(
        zip(*(conversion.table[name].to_pylist() for name in ("dialogue_id", "split")), strict=True)
    )
    assert splits == {TRAIN[0]: "train", TRAIN[1]: "dev", TEST[0]: "test"}
    assert conversion.notes[-1] == "dev: the file's own 1 conversations"
    for rest in ([*TRAIN, *TEST], [], [1, 2], TRAIN):
        assert read((*content[:-1], rest)).notes[-1].startswith("no dev ids; some of train's")


def published_numbers(conversion: Conversion, dialogue: str) -> tuple[list[int], int]:
    """The indices of a conversation's speakers, and how many there are in all."""
    table = make_corpus(conversion.table, "x")
    prepared = prepare(table, DataConfig(speakers="published", dev_fraction=0.5), 0)
    there = [row for row in prepared.to_pylist() if row["dialogue_id"] == dialogue]
    return [row["speaker_index"] for row in there], read_metadata(prepared).num_speakers


def test_published_numbers_of_speakers_come_back(read: Read) -> None:
    sexes = {**SEXES, "Ses01F_impro01": ["F", "M", "F"]}
    content = changed(LAYOUTS["COSMIC's IEMOCAP"][0], 0, sexes)
    assert published_numbers(read(content), "Ses01F_impro01") == ([1, 0, 1], 2)
    rows = {**ONE_HOT, "Ses01F_impro01": [np.eye(9)[8], np.eye(9)[3], np.zeros(9)]}
    content = changed(LAYOUTS["SDT's MELD"][0], 1, rows)
    assert published_numbers(read(content), "Ses01F_impro01") == ([8, 3, 0], 9)


@pytest.mark.parametrize("choice", TEXT_CHOICES)
def test_which_text(read: Read, choice: str) -> None:
    conversion = read(SDT_IEMOCAP, text=choice)
    keys = [*TRAIN, *TEST]
    parts = [np.concatenate([part[key] for key in keys]) for part in TEXTS]
    wanted = {"mean": np.mean(parts, axis=0), "concat": np.concatenate(parts, axis=1)}
    expected = wanted[choice] if choice in wanted else parts[int(choice[-1]) - 1]
    found = feature_matrix(conversion.table, "text")
    assert np.allclose(found, expected, atol=1e-6)
    assert any(choice in note or "four" in note for note in conversion.notes)


def test_names_of_labels(read: Read) -> None:
    names = "a,b,c,d,e,f,g"
    assert set(read(SDT_IEMOCAP, labels=names).table["label"].to_pylist()) == set("abcdef")
    assert "joyful" in read(SDT_IEMOCAP, labels="emorynlp").table["label"].to_pylist()
    assert "label names are iemocap's, by their number" in read(SDT_IEMOCAP).notes
    with pytest.raises(DataError, match="--labels a,b: label 5 needs 6 different names"):
        read(SDT_IEMOCAP, labels="a,b")
    with pytest.raises(DataError, match="label 5 needs 6 different names"):
        read(SDT_IEMOCAP, labels="a,b,c,d,e,a")


def test_labels_that_fit_two_data_sets(read: Read) -> None:
    content = (SEXES, MELD_LABELS, *TEXTS, SENTENCES, TRAIN, TEST, DEV)
    message = r"numbers up to 6, which fits meld and emorynlp; choose --labels meld\|emorynlp or"
    with pytest.raises(DataError, match=message):
        read(content)
    with pytest.raises(DataError, match="numbers up to 9, which fits no data set known here;"):
        read(changed(SDT_IEMOCAP, 2, {name: [9] * n for name, n in LENGTHS.items()}))


def test_four_classes(read: Read) -> None:
    six = read(SDT_IEMOCAP).table
    conversion = read(SDT_IEMOCAP, classes=4)
    labels = six["label"].to_pylist()
    kept = [index for index, label in enumerate(labels) if label != "frustrated"]
    assert len(kept) < len(labels)
    assert conversion.dropped["label frustrated"] == len(labels) - len(kept)
    assert conversion.table.drop_columns("label") == six.take(kept).drop_columns("label")
    expected = [labels[index].replace("excited", "happy") for index in kept]
    assert conversion.table["label"].to_pylist() == expected
    assert conversion.notes[-1].startswith("four classes: excited is taken as happy")


def test_students_are_no_choice_of_a_tuple(read: Read) -> None:
    message = "features in SDT's layout: --no-distilled has no meaning here; leave it out"
    with pytest.raises(DataError, match=message):
        read(SDT_IEMOCAP, distilled=False)


def test_a_choice_of_text_where_there_is_none(read: Read) -> None:
    with pytest.raises(DataError, match="--text mean: it has one text feature"):
        read(LAYOUTS["MMGCN's MELD"][0], text="mean")
    with pytest.raises(DataError, match="--text bert: choose roberta1, "):
        read(SDT_IEMOCAP, text="bert")


def test_features_that_are_not_finite(read: Read) -> None:
    broken = {name: [rows[0], np.full(5, np.nan), *rows[2:]] for name, rows in AUDIO.items()}
    broken[DEV[0]] = AUDIO[DEV[0]]
    content = changed(SDT_IEMOCAP, 7, broken)
    for policy in ("error", "keep"):
        message = "3 utterances have features that are not finite: Ses02M_impro02 utterance 1, "
        with pytest.raises(DataError, match=message):
            read(content, on_missing=policy)
    conversion = read(content, on_missing="drop")
    assert conversion.dropped == {"in no split": 1, "features that are not finite": 3}
    assert conversion.table.num_rows == 8
    assert len(conversion.listed["features not finite"]) == 3


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (1, without(SEXES, TRAIN[0]), "conversation Ses02M_impro02 has no speakers"),
        (9, {**SENTENCES, TRAIN[1]: ["a"]}, "Ses01F_impro01: 3 labels but 1 sentences"),
        (3, without(TEXTS[0], TRAIN[0]), r"Ses02M_impro02: text1 features have the shape \(0,\)"),
        (7, {**AUDIO, TEST[0]: AUDIO[TEST[0]][:1]}, r"audio features have the shape \(1, 5\), not"),
        (8, {**VIDEO, TEST[0]: np.ones((2, 4))}, r"video .* the shape \(2, 4\), not \(2, 3\)"),
        (8, {**VIDEO, TEST[0]: [["a", "b", "c"]] * 2}, "video features have the shape"),
        (10, [*TRAIN, "Ses09"], "conversation Ses09 of train is without labels"),
        (11, TRAIN[:1], "conversation Ses02M_impro02 of test is in train too"),
        (2, {**LABELS, TEST[0]: [-1, 0]}, "labels are numbers from 0"),
        (2, {**LABELS, TEST[0]: ["sad", 0]}, "labels has 'sad', which is no whole number"),
        (1, {**SEXES, TEST[0]: [None, "F"]}, "Ses05M_script03_2: a speaker is None; repair it"),
        (2, TRAIN, r"a tuple of 12 \(SSIVVVVVVSII\); known are the tuples of SDT, MMGCN and"),
        (4, "text", r"a tuple of 12 \(SSSV\?VVVVSII\)"),
        (4, {TRAIN[0]: [[1, [2]], [3]]}, r"a tuple of 12 \(SSSV\?VVVVSII\)"),
        (4, {TRAIN[0]: [np.ones(2), 3]}, r"a tuple of 12 \(SSSV\?VVVVSII\)"),
        (4, {TRAIN[0]: 3, TRAIN[1]: []}, r"a tuple of 12 \(SSSV\?VVVVSII\)"),
    ],
)
def test_fields_that_do_not_fit(read: Read, place: int, value: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(changed(SDT_IEMOCAP, place, value))


@pytest.mark.parametrize("content", [{"a": 1}, [], (), (1, 2), "text", {"text": {}}])
def test_another_pickle(read: Read, content: Any) -> None:
    with pytest.raises(DataError, match=r"features\.pkl: a \w+.*; known are the tuples of"):
        read(content)


def test_nothing_of_a_pickle_is_run(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    (tmp_path / "evil.pkl").write_bytes(f"cposix\nsystem\n(S'touch {marker}'\ntR.".encode())
    with pytest.raises(DataError, match=r"refused: it asks for posix\.system"):
        read_features(tmp_path / "evil.pkl", Options())
    assert not marker.exists()
