from __future__ import annotations

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magtkd.config import SyntheticConfig
from magtkd.data import feature_matrix, feature_widths, make_corpus, make_synthetic

LARGE = SyntheticConfig(num_dialogues=300, mean_length=9.0, text_signal=3.0)


def _same_share(values: pa.ChunkedArray) -> float:
    """How often a value equals the one before it."""
    codes = values.combine_chunks().dictionary_encode().indices.to_numpy()
    return float((codes[1:] == codes[:-1]).mean())


def _predicted(table: pa.Table, modality: str) -> float:
    """Accuracy of the nearest label mean."""
    values, labels = feature_matrix(table, modality), np.array(table["label"].to_pylist())
    names = np.unique(labels)
    means = np.stack([values[labels == name].mean(axis=0) for name in names])
    nearest = ((values[:, None] - means) ** 2).sum(axis=2).argmin(axis=1)
    return float((names[nearest] == labels).mean())


def test_same_seed_gives_the_same_table() -> None:
    assert make_synthetic(LARGE).equals(make_synthetic(LARGE))
    other = LARGE.model_copy(update={"seed": 1})
    assert not make_synthetic(other)["label"].equals(make_synthetic(LARGE)["label"])


def test_a_signal_changes_nothing_but_its_column() -> None:
    table = make_synthetic(LARGE)
    other = make_synthetic(LARGE.model_copy(update={"audio_signal": 2.0}))
    changed = [name for name in table.column_names if not table[name].equals(other[name])]
    assert changed == ["audio_features"]


def test_shape_is_as_configured() -> None:
    corpus = make_corpus(make_synthetic(LARGE), "synthetic")
    assert feature_widths(corpus.table) == {"text": 32, "audio": 24, "video": 16}
    assert len(corpus.labels) == LARGE.num_emotions
    assert pc.count_distinct(corpus.table["speaker"]).as_py() == LARGE.num_speakers
    dialogues = corpus.table.group_by("split").aggregate([("dialogue_id", "count_distinct")])
    counts = {row["split"]: row["dialogue_id_count_distinct"] for row in dialogues.to_pylist()}
    assert counts == {"train": 210, "dev": 30, "test": 60}
    assert corpus.table.num_rows / LARGE.num_dialogues == pytest.approx(9.0, abs=0.5)
    assert corpus.warnings == ()


def test_contagion_and_inertia_bind_emotions() -> None:
    free = SyntheticConfig(num_dialogues=200, inertia=0.0, contagion=0.0)
    shares = [
        _same_share(make_synthetic(free.model_copy(update=update))["label"])
        for update in ({}, {"contagion": 0.4}, {"inertia": 0.4}, {"contagion": 0.9})
    ]
    # Independent emotions with shares 2/5, 1/5, 1/5, 1/5 agree by chance in 7/25 of the cases.
    assert shares[0] == pytest.approx(0.28, abs=0.05)
    assert shares[0] < shares[2] < shares[1] < shares[3]


def test_full_inertia_gives_each_speaker_one_emotion() -> None:
    table = make_synthetic(SyntheticConfig(inertia=1.0, contagion=0.0))
    emotions = table.group_by(["dialogue_id", "speaker"]).aggregate([("label", "count_distinct")])
    assert pc.max(emotions["label_count_distinct"]).as_py() == 1


def test_full_contagion_gives_each_conversation_one_emotion() -> None:
    table = make_synthetic(SyntheticConfig(inertia=0.0, contagion=1.0))
    emotions = table.group_by("dialogue_id").aggregate([("label", "count_distinct")])
    assert pc.max(emotions["label_count_distinct"]).as_py() == 1


def test_conversations_have_two_or_three_speakers() -> None:
    table = make_synthetic(SyntheticConfig(num_speakers=11, mean_length=60.0, num_dialogues=23))
    speakers = table.group_by("dialogue_id").aggregate([("speaker", "count_distinct")])
    assert set(speakers["speaker_count_distinct"].to_pylist()) == {2, 3}


def test_text_is_strong_audio_middling_video_weak() -> None:
    table = make_synthetic(LARGE)
    text, audio, video = (_predicted(table, name) for name in ("text", "audio", "video"))
    assert text > 0.8
    assert text > audio + 0.1 > video + 0.1


def test_words_tell_the_emotion() -> None:
    table = make_synthetic(LARGE.model_copy(update={"word_signal": 1.0}))
    words: dict[str, set[str]] = {}
    for text, label in zip(table["text"].to_pylist(), table["label"].to_pylist(), strict=True):
        words.setdefault(label, set()).update(text.split())
    assert sum(map(len, words.values())) == len(set.union(*words.values()))


@settings(max_examples=30, deadline=None)
@given(
    num_dialogues=st.integers(3, 17),
    mean_length=st.floats(1, 5),
    num_emotions=st.integers(2, 7),
    num_speakers=st.integers(1, 4),
    text_dim=st.integers(1, 9),
    seed=st.integers(0, 1000),
)
def test_every_configuration_gives_a_valid_corpus(seed: int, **values: float) -> None:
    config = SyntheticConfig(seed=seed, **values)  # type: ignore[arg-type]
    corpus = make_corpus(make_synthetic(config), "synthetic")
    assert pc.count_distinct(corpus.table["dialogue_id"]).as_py() == config.num_dialogues


def test_the_data_package_imports_no_torch() -> None:
    script = "import sys, magtkd.data, magtkd.data.describe; assert 'torch' not in sys.modules"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert result.returncode == 0, result.stderr.decode()
