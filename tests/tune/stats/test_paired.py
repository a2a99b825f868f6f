"""Comparisons of two systems: how often they are wrong, and what must not matter to them."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tune.stats import (
    conversation_counts,
    holm,
    intervals,
    permutation_p,
    score_counts,
)

LABELS = ("joy", "anger", "fear")


def draw_counts(generator, num_seeds=3, num_conversations=12, size=6, skill=0.6):
    """Predictions of a system as counts: it is right at a rate that varies with conversations."""
    label = np.random.default_rng(0).integers(0, len(LABELS), (num_conversations, size))
    rate = (skill + 0.2 * generator.normal(size=(1, num_conversations, 1))).clip(0, 1)
    is_right = generator.random((num_seeds, num_conversations, size)) < rate
    other = (label + generator.integers(1, len(LABELS), is_right.shape)) % len(LABELS)
    cell = label * len(LABELS) + np.where(is_right, label, other)
    one_hot = cell[..., None] == np.arange(len(LABELS) ** 2)
    return one_hot.sum(axis=2).reshape(num_seeds, num_conversations, len(LABELS), len(LABELS))


@pytest.mark.parametrize("metric", ["accuracy", "weighted_f1", "f1/joy"])
def test_under_permuted_labels_one_in_twenty_is_significant(metric):
    generator = np.random.default_rng(0)
    one, other = draw_counts(generator), draw_counts(generator, skill=0.7)
    number, found = 400, 0
    for _ in range(number):
        swap = generator.integers(0, 2, one.shape[1]).astype(bool)[None, :, None, None]
        pair = np.where(swap, other, one), np.where(swap, one, other)
        found += permutation_p(*pair, metric, LABELS, num_draws=400) < 0.05
    # Within three times the error of a share of 5 %.
    assert abs(found / number - 0.05) <= 3 * (0.05 * 0.95 / number) ** 0.5


def test_two_systems_that_differ_are_told_apart():
    generator = np.random.default_rng(1)
    good, bad = draw_counts(generator, skill=0.9), draw_counts(generator, skill=0.3)
    assert permutation_p(good, bad, "weighted_f1", LABELS) < 0.001
    found = intervals(good, bad, "weighted_f1", LABELS)
    assert 0 < found.low < found.high < 1


def test_a_system_does_not_differ_from_itself():
    one = draw_counts(np.random.default_rng(2))
    assert permutation_p(one, one, "macro_f1", LABELS, num_draws=100) == 1
    found = intervals(one, one, "macro_f1", LABELS, num_draws=100)
    assert (found.low, found.high) == (0, 0)


def test_the_p_value_is_that_of_all_swaps():
    generator = np.random.default_rng(3)
    one, other = (draw_counts(generator, num_conversations=7, skill=s) for s in (0.5, 0.8))

    def gap(swap):
        swap = np.array(swap, dtype=bool)[None, :, None, None]
        pair = np.where(swap, other, one), np.where(swap, one, other)
        means = [score_counts(x.sum(axis=1), "weighted_f1", LABELS).mean() for x in pair]
        return abs(means[0] - means[1])

    every = [gap(swap) for swap in itertools.product([0, 1], repeat=7)]
    exact = np.mean(np.array(every) >= every[0] - 1e-12)
    drawn = permutation_p(one, other, "weighted_f1", LABELS)
    assert drawn == pytest.approx(exact, abs=4 * (exact * (1 - exact) / 10_000) ** 0.5 + 1e-4)


@settings(max_examples=10)
@given(seed=st.integers(0, 10**6))
def test_the_order_of_utterances_and_seeds_changes_nothing(seed):
    generator = np.random.default_rng(seed)
    conversation = generator.integers(0, 6, 50)
    label = generator.integers(0, 3, 50)
    predicted = generator.integers(0, 3, (2, 2, 50))
    order, rows = generator.permutation(50), slice(None)

    def p_of(order, step):
        systems = [
            np.stack(
                [
                    conversation_counts(label[order], one[order], conversation[order], 3)
                    for one in system[::step]
                ]
            )
            for system in predicted
        ]
        return permutation_p(*systems, "weighted_f1", LABELS, num_draws=200)

    assert p_of(order, -1) == p_of(rows, 1)


def test_an_interval_has_the_mean_and_narrows_with_more_conversations():
    generator = np.random.default_rng(4)
    widths = []
    for number in (10, 200):
        one = draw_counts(generator, num_conversations=number)
        mean = score_counts(one.sum(axis=1), "accuracy", LABELS).mean()
        found = intervals(one, None, "accuracy", LABELS, num_draws=2000)
        assert found.low < mean < found.high
        widths.append(found.high - found.low)
    assert widths[1] < widths[0] / 2


def test_holm_is_the_one_of_the_books():
    # By hand: 4 * 0.005, 3 * 0.01, 2 * 0.03, 1 * 0.04 raised to the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@given(p_values=st.lists(st.floats(0, 1), max_size=8), seed=st.integers(0, 99))
def test_holm_keeps_the_order_and_is_between_none_and_bonferroni(p_values, seed):
    found = holm(p_values)
    for one, own in zip(found, p_values, strict=True):
        assert own <= one <= min(1.0, len(p_values) * own) + 1e-12
    order = np.random.default_rng(seed).permutation(len(p_values))
    assert sorted(holm([p_values[place] for place in order])) == sorted(found)
