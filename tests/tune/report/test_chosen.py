"""The chosen trial on dev: its errors, its confusions, its features."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from magtkd.errors import ArtifactError
from magtkd.pipeline import StageRecord, run_chain
from magtkd.store import Store
from tune.report.chosen import (
    NUM_AROUND,
    Dev,
    calibration_chart,
    confident_errors,
    confusion_chart,
    feature_chart,
    per_class_chart,
    read_dev,
)

LABELS = ("anger", "joy", "neutral")


def made(count, seed=0, width=5):
    generator = np.random.default_rng(seed)
    raw = generator.random((count, len(LABELS)))
    return Dev(
        labels=LABELS,
        label=generator.integers(-1, len(LABELS), count),
        probabilities=raw / raw.sum(axis=1, keepdims=True),
        features=generator.normal(size=(count, width)),
        dialogue=[f"d{row // 7}" for row in range(count)],
        speaker=[f"s{row % 2}" for row in range(count)],
        text=[f"text {row}" if row % 5 else "" for row in range(count)],
    )


@given(count=st.integers(0, 60), seed=st.integers(0, 99))
def test_the_most_confident_errors_come_first_with_what_is_around_them(count, seed):
    dev = made(count, seed)
    wrong = [row for row in range(count) if dev.label[row] not in (-1, dev.prediction[row])]
    excerpts = confident_errors(dev, number=4)
    assert len(excerpts) == min(4, len(wrong))
    expected = sorted(wrong, key=lambda row: -dev.confidence[row])[:4]
    for row, excerpt in zip(expected, excerpts, strict=True):
        (error,) = [line for line in excerpt.lines if line.is_error]
        assert (error.text, error.speaker) == (dev.text[row] or "(no text)", dev.speaker[row])
        assert (error.label, error.predicted) == (
            LABELS[dev.label[row]],
            LABELS[dev.prediction[row]],
        )
        assert f"in conversation {dev.dialogue[row]}" in excerpt.title
        assert len(excerpt.lines) <= 2 * NUM_AROUND + 1
        inside = [one for one in range(count) if dev.dialogue[one] == dev.dialogue[row]]
        assert {line.text for line in excerpt.lines} <= {
            dev.text[one] or "(no text)" for one in inside
        }


def test_the_confusion_matrix_counts_utterances_with_a_label():
    dev = made(80)
    (panel,) = confusion_chart(dev).panels
    counts = np.array([[int(cell) for cell in row] for row in panel.heat.texts])
    assert counts.sum() == (dev.label >= 0).sum()
    assert np.allclose(panel.heat.values.sum(axis=1), 100)
    right = (dev.prediction == dev.label).sum()
    assert counts.trace() == right
    assert panel.x.names == panel.y.names == LABELS


def test_scores_of_each_class_are_in_points():
    (panel,) = per_class_chart(made(80)).panels
    *bars, precision, recall = (marks.x for marks in panel.marks)
    f1 = np.concatenate(bars)
    assert np.allclose(f1, 2 * precision * recall / (precision + recall))
    assert 1 < f1.max() <= 100


def test_a_calibrated_model_is_on_the_line():
    dev = made(4000)
    generator = np.random.default_rng(1)
    label = np.array([generator.choice(3, p=row) for row in dev.probabilities])
    calibrated = Dev(
        **{name: getattr(dev, name) for name in dev.__dataclass_fields__} | {"label": label}
    )
    points = calibration_chart(calibrated).panels[0].marks[1]
    assert np.abs(points.x - points.y).max() < 6


@pytest.mark.parametrize(
    ("dev", "method"),
    [
        (made(10), "PCA"),
        (made(90), "t-SNE"),
        (made(90, width=1), "as they are"),
        (Dev(**vars(made(40)) | {"features": np.ones((40, 5))}), "as they are"),
    ],
)
def test_features_have_two_dimensions_and_their_label(dev, method):
    chart = feature_chart(dev)
    assert f"({method})" in chart.caption
    (panel,) = chart.panels
    assert [marks.name for marks in panel.marks] == list(LABELS)
    assert [len(marks.x) for marks in panel.marks] == [
        (dev.label == index).sum() for index in range(len(LABELS))
    ]
    assert all(np.isfinite(marks.x).all() for marks in panel.marks)


def test_without_labels_there_are_no_features():
    assert feature_chart(Dev(**vars(made(9)) | {"label": np.full(9, -1)})) is None


def test_what_is_read_is_of_dev(tmp_path, tiny_config, new_story, read):
    store = Store(tmp_path)
    artifacts = run_chain(tiny_config(), store)
    story = new_story()
    stages = {name: StageRecord(one.key, "trained", 1.0) for name, one in artifacts.items()}
    story.trial(0, {"fusion.depth": 1}, [0.5], **stages)
    trial = read(story).chosen
    dev = read_dev(trial, store)
    data = artifacts["data"].table
    is_dev = data["split"].to_numpy() == "dev"
    assert dev.text == [
        text for text, one in zip(data["text"].to_pylist(), is_dev, strict=True) if one
    ]
    assert np.allclose(dev.probabilities.sum(axis=1), 1)
    logits = np.array(artifacts["fusion"].table["logits"].to_pylist())[is_dev]
    assert (dev.prediction == logits.argmax(axis=1)).all()
    with pytest.raises(ArtifactError, match="no such artifact"):
        read_dev(trial, Store(tmp_path / "other"))
