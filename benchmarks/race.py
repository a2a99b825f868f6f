"""What does a race spare of giving each configuration all seeds, and does it lose the best one?

    python benchmarks/race.py
    python benchmarks/race.py --races 2000 --out race.json

The comparison of `magtkd confirm` (`tune.stats`) on made-up trainings: five configurations, at most
ten seeds each, 114 conversations of ten utterances on dev as MELD has them. A configuration is
right at a rate that varies with the seed (1.5 points), with the conversation (10 points, the same
for all configurations), and with both configuration and conversation (5 points). The other race
decides as is often done: after each seed from the second on, by a bootstrap of 400 draws over
seeds and conversations whose 95 % interval of the difference excludes 0, without a correction.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import common
import numpy as np
from numpy.typing import NDArray

from tune.stats import FIRST_LOOK, Scored, behind, num_looks

NUM_SEEDS, NUM_CONVERSATIONS, LENGTH, DRAWS = 10, 114, 10, 400
OF_SEED, OF_CONVERSATION, OF_BOTH = 0.015, 0.1, 0.05
LEVEL = 0.05
GAPS = {
    "all equal": (0, 0, 0, 0, 0),
    "close together": (0, 0.5, 1, 1.5, 2),
    "spread out": (0, 2, 4, 6, 8),
    "one is worse": (0, 0, 0, 0, 6),
    "one is better": (0, 4, 4, 4, 4),
}
"""How far the true rate of each configuration is below the best one's, in points."""
Right = NDArray[np.int64]
"""Utterances that are right, [configuration, seed, conversation]."""
Worse = Callable[[Right, int], NDArray[np.bool_]]
"""Which of some configurations are worse, given how many there were."""


def draw_right(generator: np.random.Generator, gaps: tuple[float, ...]) -> Right:
    """What the trainings of one race would give, were all of them run."""
    number = len(gaps)
    rates = (
        0.6
        - np.array(gaps)[:, None, None] / 100
        + OF_SEED * generator.normal(size=(number, NUM_SEEDS, 1))
        + OF_CONVERSATION * generator.normal(size=(1, 1, NUM_CONVERSATIONS))
        + OF_BOTH * generator.normal(size=(number, 1, NUM_CONVERSATIONS))
    )
    return generator.binomial(LENGTH, rates.clip(0, 1))


def by_variance(right: Right, number: int) -> NDArray[np.bool_]:
    """As `magtkd confirm` decides."""
    total, num_conversations = right.sum(axis=2), right.shape[2]
    scored = Scored(
        scores=total / (num_conversations * LENGTH),
        without=(total[..., None] - right) / ((num_conversations - 1) * LENGTH),
    )
    num_tests = num_looks(NUM_SEEDS) * (number - 1)
    return np.array([one.p <= LEVEL for one in behind(scored, num_tests)])


def by_bootstrap(right: Right, number: int) -> NDArray[np.bool_]:
    """As is often done."""
    lead = right.mean(axis=(1, 2)).argmax()
    difference = (right[lead] - right).astype(float)
    seeds, conversations = map(resampled, right.shape[1:])
    means = ((seeds @ difference) * conversations).sum(axis=2)
    return np.asarray(np.quantile(means, 0.025, axis=1) > 0)


@functools.cache
def resampled(size: int) -> NDArray[np.float64]:
    """How often each of some things is drawn, in `DRAWS` drawings of as many with replacement."""
    return np.random.default_rng(0).multinomial(size, [1 / size] * size, DRAWS) / size


def race(right: Right, worse: Worse, first: int) -> tuple[bool, int, int]:
    """Whether the best configuration was lost, trainings, and the one that is chosen."""
    number = len(right)
    alive, trained = np.arange(number), number * first
    for num_seeds in range(first, NUM_SEEDS + 1):
        if num_seeds > first:
            trained += len(alive)
        if len(alive) > 1:
            alive = alive[~worse(right[alive, :num_seeds], number)]
    return 0 not in alive, trained, int(alive[right[alive].mean(axis=(1, 2)).argmax()])


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--races", type=int, default=300)
    options = parser.parse_args()
    result: dict[str, Any] = {"machine": common.machine(), "races": options.races}
    kinds: dict[str, tuple[Worse, int]] = {
        "confirm": (by_variance, FIRST_LOOK),
        "bootstrap, uncorrected": (by_bootstrap, 2),
    }
    rows: list[list[Any]] = []
    for name, gaps in GAPS.items():
        generator = np.random.default_rng(0)
        every = [draw_right(generator, gaps) for _ in range(options.races)]
        for kind, (worse, first) in kinds.items():
            lost, trained, chosen = zip(*(race(one, worse, first) for one in every), strict=True)
            short = np.mean([gaps[one] for one in chosen])
            spent = np.mean(trained) / (len(gaps) * NUM_SEEDS)
            rows.append([name, kind, float(np.mean(lost)), float(spent), float(short)])
    result["rows"] = rows
    columns = ["configurations", "race", "best one lost", "share of all trainings", "points short"]
    common.publish("race", result, columns, rows, options.out)


if __name__ == "__main__":
    main()
