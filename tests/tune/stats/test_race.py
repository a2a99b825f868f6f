"""The race on made-up predictions: how often it is wrong, and how soon it is right."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tune.stats import Scored, behind, estimates, num_looks, score_run
from tune.stats.race import FIRST_LOOK

LABELS = ("joy", "anger", "fear")
NUM_SEEDS, NUM_CONVERSATIONS = 6, 15


def counts_of(generator, rates, num_seeds=NUM_SEEDS, per_conversation=8, of_seed=0.03):
    """Confusion matrices of configurations that are right at some rates, [configuration, seed,
    conversation, class, class]: a rate varies with seed, conversation, and both."""
    rates = np.asarray(rates)[:, None, None]
    shape = len(rates), num_seeds, NUM_CONVERSATIONS
    rates = (
        rates
        + of_seed * generator.normal(size=(shape[0], num_seeds, 1))
        + 0.1 * generator.normal(size=(1, 1, NUM_CONVERSATIONS))
        + 0.05 * generator.normal(size=(shape[0], 1, NUM_CONVERSATIONS))
    ).clip(0, 1)
    label = generator.integers(0, len(LABELS), (NUM_CONVERSATIONS, per_conversation))
    is_right = generator.random((*shape, per_conversation)) < rates[..., None]
    other = (label + generator.integers(1, len(LABELS), is_right.shape)) % len(LABELS)
    cell = label * len(LABELS) + np.where(is_right, label, other)
    one_hot = cell[..., None] == np.arange(len(LABELS) ** 2)
    return one_hot.sum(axis=-2).reshape(*shape, len(LABELS), len(LABELS))


def scored_of(counts, metric="accuracy", labels=LABELS):
    return Scored.of([[score_run(one, metric, labels) for one in seeds] for seeds in counts])


def race(counts, metric="accuracy", level=0.05):
    """The seeds after which each configuration is found worse, by configuration."""
    num_configurations, num_seeds = counts.shape[:2]
    num_tests = num_looks(num_seeds) * (num_configurations - 1)
    alive, found = list(range(num_configurations)), {}
    for number in range(min(FIRST_LOOK, num_seeds), num_seeds + 1):
        if len(alive) > 1:
            results = behind(scored_of(counts[alive, :number], metric), num_tests)
            pairs = list(zip(alive, results, strict=True))
            found |= {one: number for one, result in pairs if result.p <= level}
            alive = [one for one in alive if one not in found]
    return found


@pytest.mark.parametrize("metric", ["accuracy", "weighted_f1"])
@pytest.mark.parametrize(
    ("num_configurations", "num_seeds", "of_seed"),
    [(2, 2, 0.03), (2, 3, 0.0), (4, 6, 0.03), (4, 6, 0.0), (5, 3, 0.06)],
)
def test_of_equal_configurations_few_are_found_worse(
    num_configurations, num_seeds, of_seed, metric
):
    generator = np.random.default_rng(0)
    number = 200
    wrong = sum(
        len(
            race(
                counts_of(generator, [0.6] * num_configurations, num_seeds, of_seed=of_seed), metric
            )
        )
        for _ in range(number)
    )
    # The share is at most 5 %, within three times its error.
    tried = number * num_configurations
    assert wrong / tried <= 0.05 + 3 * (0.05 * 0.95 / tried) ** 0.5


def test_one_that_varies_more_than_the_others_does_not_end_these():
    generator = np.random.default_rng(0)
    wrong = 0
    for _ in range(200):
        steady = counts_of(generator, [0.6] * 4, of_seed=0.01)
        wild = counts_of(generator, [0.6], of_seed=0.1)
        wrong += len(race(np.concatenate([steady, wild])))
    assert wrong / 1000 <= 0.05 + 3 * (0.05 * 0.95 / 1000) ** 0.5


def test_a_clearly_worse_one_goes_early_and_the_best_one_stays():
    generator = np.random.default_rng(0)
    found = [race(counts_of(generator, [0.7, 0.7, 0.3, 0.69])) for _ in range(50)]
    assert sum(one.get(2) == FIRST_LOOK for one in found) > 45
    assert sum(0 in one for one in found) <= 2


@given(seed=st.integers(0, 10**6))
def test_the_order_of_rows_changes_nothing(seed):
    generator = np.random.default_rng(seed)
    counts = counts_of(generator, generator.uniform(0.3, 0.8, 4), num_seeds=4)
    results, means = behind(scored_of(counts), 3), estimates(scored_of(counts), 0.9)
    rows, seeds, conversations = (generator.permutation(size) for size in counts.shape[:3])
    shuffled = scored_of(counts[np.ix_(rows, seeds, conversations)])
    for place, row in enumerate(rows):
        result, mean = behind(shuffled, 3)[place], estimates(shuffled, 0.9)[place]
        assert vars(mean) == pytest.approx(vars(means[row]))
        if len(set(scored_of(counts).means.round(9))) == 4:  # else another of equals leads
            assert vars(result) == pytest.approx(vars(results[row]))


def test_over_seeds_alone_the_interval_is_student_s():
    """All conversations are alike, so that the seeds are all that varies."""
    counts = np.zeros((1, 5, 10, 2, 2), dtype=int)
    right = np.array([3, 4, 4, 5, 6])
    counts[0, :, :, 0, 0], counts[0, :, :, 0, 1] = right[:, None], 8 - right[:, None]
    (found,) = estimates(scored_of(counts, labels=("a", "b")), 0.95)
    scores = right / 8
    low, high = stats.t.interval(0.95, 4, scores.mean(), scores.std(ddof=1) / 5**0.5)
    assert (found.low, found.high) == pytest.approx((low, high))
    assert (found.mean, found.deviation) == pytest.approx((scores.mean(), scores.std(ddof=1)))


def test_over_conversations_alone_the_variance_is_that_of_their_mean():
    """All seeds are alike; accuracy over conversations of one length is a mean over these."""
    counts = np.zeros((1, 3, 6, 2, 2), dtype=int)
    right = np.array([1, 5, 8, 3, 4, 7])
    counts[0, :, :, 0, 0], counts[0, :, :, 0, 1] = right, 8 - right
    (found,) = estimates(scored_of(counts, labels=("a", "b")), 0.95)
    scores = right / 8
    low, high = stats.t.interval(0.95, 5, scores.mean(), scores.std(ddof=1) / 6**0.5)
    assert (found.low, found.high) == pytest.approx((low, high))


def test_equal_predictions_are_never_told_apart():
    generator = np.random.default_rng(0)
    counts = np.repeat(counts_of(generator, [0.6]), 3, axis=0)
    assert [result.p for result in behind(scored_of(counts), 2)] == [1.0, 1.0, 1.0]
    assert race(counts) == {}


def test_a_difference_without_any_variance_is_sure():
    counts = np.zeros((2, 3, 4, 2, 2), dtype=int)
    counts[0, ..., 0, 0], counts[1, ..., 0, 1] = 5, 5
    first, other = behind(scored_of(counts, labels=("a", "b")), 1)
    assert (first.gap, first.p, other.gap, other.p) == (0.0, 1.0, 1.0, 0.0)


@pytest.mark.parametrize(("num_seeds", "expected"), [(2, 1), (3, 1), (4, 2), (10, 8)])
def test_looks_are_after_each_seed_from_the_third_on(num_seeds, expected):
    assert num_looks(num_seeds) == expected
