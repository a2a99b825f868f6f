"""Scores of counts: those of the core's metrics, for many sums at once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from magtkd.metrics import classification_metrics
from tune.stats import conversation_counts, score_counts

LABELS = ("joy", "anger", "fear", "none")


def draw(seed, size=40, num_conversations=6):
    generator = np.random.default_rng(seed)
    label, prediction = generator.integers(0, len(LABELS) - 1, (2, size))
    return label, prediction, generator.integers(0, num_conversations, size)


@given(seed=st.integers(0, 10**6))
def test_the_scores_are_those_of_the_metrics(seed):
    label, prediction, conversation = draw(seed)
    counts = conversation_counts(label, prediction, conversation, len(LABELS))
    kept = conversation != conversation.min()
    for one, rows in ((counts.sum(axis=0), slice(None)), (counts[1:].sum(axis=0), kept)):
        expected = classification_metrics(label[rows], prediction[rows], LABELS)
        for metric in ("accuracy", "weighted_f1", "macro_f1"):
            assert score_counts(one, metric, LABELS) == pytest.approx(expected[metric], rel=1e-12)
        for name in LABELS:
            f1 = expected["per_class"][name]["f1"]
            assert score_counts(one, f"f1/{name}", LABELS) == pytest.approx(f1, rel=1e-12)


@given(seed=st.integers(0, 10**6))
def test_the_order_of_utterances_changes_nothing(seed):
    rows = draw(seed)
    order = np.random.default_rng(seed).permutation(len(rows[0]))
    shuffled = conversation_counts(*(one[order] for one in rows), len(LABELS))
    assert (shuffled == conversation_counts(*rows, len(LABELS))).all()


def test_other_metrics_are_refused():
    counts = np.ones((2, 4, 4), dtype=int)
    with pytest.raises(ValueError, match=r"^'loss' is no score of predictions over joy, anger"):
        score_counts(counts, "loss", LABELS)
    with pytest.raises(ValueError, match=r"^'f1/disgust' is no score"):
        score_counts(counts, "f1/disgust", LABELS)
