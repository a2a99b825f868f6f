from __future__ import annotations

import sys
from subprocess import run

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from magtkd.metrics import classification_metrics, confusion_matrix

pairs = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=30)
LABELS = ("anger", "joy", "neutral", "sadness", "surprise")


def test_confusion_matrix_counts_true_by_predicted() -> None:
    confusion = confusion_matrix([0, 0, 1, 2, 2], [0, 1, 1, 0, 0], 3)
    assert confusion.tolist() == [[1, 1, 0], [0, 1, 0], [2, 0, 0]]


def test_metrics_by_hand() -> None:
    # anger: 3 true, 2 predicted, 2 right. joy: 2, 4, 2. neutral: 1, 0, 0.
    metrics = classification_metrics(
        [0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 1, 1], ["anger", "joy", "neutral"]
    )
    assert metrics["accuracy"] == pytest.approx(4 / 6)
    assert metrics["weighted_f1"] == pytest.approx((3 * 4 / 5 + 2 * 2 / 3) / 6)
    assert metrics["macro_f1"] == pytest.approx((4 / 5 + 2 / 3 + 0) / 3)
    assert metrics["per_class"] == {
        "anger": {
            "precision": 1.0,
            "recall": pytest.approx(2 / 3),
            "f1": pytest.approx(4 / 5),
            "support": 3,
        },
        "joy": {"precision": 0.5, "recall": 1.0, "f1": pytest.approx(2 / 3), "support": 2},
        "neutral": {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1},
    }


def test_a_class_that_is_only_predicted_has_no_support_and_no_weight() -> None:
    metrics = classification_metrics([0, 0], [0, 1], ["joy", "neutral"])
    assert metrics["per_class"]["neutral"] == {
        "precision": 0.0,
        "recall": 0.0,
        "f1": 0.0,
        "support": 0,
    }
    assert metrics["weighted_f1"] == pytest.approx(2 / 3)
    assert metrics["macro_f1"] == pytest.approx((2 / 3 + 0) / 2)


def test_a_class_that_does_not_occur_is_not_in_macro_f1() -> None:
    metrics = classification_metrics([0, 0], [0, 0], ["joy", "neutral"])
    assert metrics["macro_f1"] == 1.0


@given(pairs)
def test_right_predictions_score_one(drawn: list[tuple[int, int]]) -> None:
    label = [true for true, _ in drawn]
    metrics = classification_metrics(label, label, LABELS)
    assert metrics["accuracy"] == metrics["weighted_f1"] == metrics["macro_f1"] == 1.0


@given(pairs, st.randoms(use_true_random=False))
def test_order_does_not_matter_and_counts_add_up(drawn: list[tuple[int, int]], random) -> None:  # type: ignore[no-untyped-def]
    before = classification_metrics(*zip(*drawn, strict=True), LABELS)
    assert sum(scores["support"] for scores in before["per_class"].values()) == len(drawn)
    assert 0 <= before["weighted_f1"] <= 1
    random.shuffle(drawn)
    assert classification_metrics(*zip(*drawn, strict=True), LABELS) == before


@given(pairs)
def test_accuracy_is_the_recall_weighted_by_support(drawn: list[tuple[int, int]]) -> None:
    metrics = classification_metrics(*zip(*drawn, strict=True), LABELS)
    recalled = sum(scores["recall"] * scores["support"] for scores in metrics["per_class"].values())
    assert metrics["accuracy"] == pytest.approx(recalled / len(drawn))


def test_arrays_are_accepted_and_numbers_are_plain() -> None:
    metrics = classification_metrics(
        np.array([0, 1], dtype=np.int32), np.array([0, 0]), ["joy", "neutral"]
    )
    assert type(metrics["accuracy"]) is float
    assert type(metrics["per_class"]["joy"]["support"]) is int


@pytest.mark.parametrize(
    ("label", "prediction", "message"),
    [
        ([0, 1], [0], "2 labels and 1 predictions"),
        ([0, 2], [0, 1], "label 2 is not among the classes 0 to 1"),
        ([0, 1], [-1, 1], "prediction -1 is not among the classes 0 to 1"),
        ([0.5, 1.0], [0, 1], "label is float64"),
        ([], [], "no utterances"),
    ],
)
def test_wrong_input_is_refused(label: list[int], prediction: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        classification_metrics(label, prediction, ["joy", "neutral"])


def test_imports_no_torch() -> None:
    code = "import sys, magtkd.metrics; sys.exit('torch' in sys.modules)"
    assert run([sys.executable, "-c", code], check=False).returncode == 0
