"""How much compute does a search take for the same answer? Samplers on problems of known optimum.

    python benchmarks/search.py
    python benchmarks/search.py --problems 40 --regimes "10 : 6 : 4" --out search.json

Study, sampler and scheduler are the real ones; training is replaced by a problem of nine knobs in a
chain of teacher, students and fusion, four of them continuous knobs of early stages, whose costs
are a regime (`search_problems.py`). Compute is counted in whole chains. A sweep's answer is the
noise-free score of the completed trial that is best on dev. The full budget is 100 whole chains;
`cost_aware_tpe` gets a quarter of it. All figures are means over problems; intervals are 95 % of a
bootstrap over problems.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

import common
import numpy as np
from search_problems import EPOCHS, REGIMES, SPACE, Chain
from search_simulation import simulate

from tune.config import SweepConfig
from tune.space import Values

FULL = 100
"""Whole chains that the samplers which know no cost may take."""
SHOWN = (5, 10, 14, 25, 50, 100)
REFERENCE = "tpe, asha"
UNREUSED = "tpe, asha, no reuse"


class Variant(NamedTuple):
    sampler: str
    scheduler: str
    reuse: bool = True
    start: str = "none"


VARIANTS = {
    "random": Variant("random", "fifo"),
    "random, no reuse": Variant("random", "fifo", reuse=False),
    "tpe": Variant("tpe", "fifo"),
    REFERENCE: Variant("tpe", "asha"),
    UNREUSED: Variant("tpe", "asha", reuse=False),
    "tpe, asha, fair first guess": Variant("tpe", "asha", start="fair"),
    "cost_aware_tpe, asha": Variant("cost_aware_tpe", "asha"),
    "cost_aware_tpe, asha, fair first guess": Variant("cost_aware_tpe", "asha", start="fair"),
    "cost_aware_tpe, asha, bad first guess": Variant("cost_aware_tpe", "asha", start="bad"),
}
NUM_TRIALS = {"cost_aware_tpe": 80}
"""A sweep of its own size for a quarter of the budget; the others end with the budget."""


def sweep_of(variant: Variant, problem: Chain, seed: int) -> SweepConfig:
    scheduler: dict[str, Any] = {"kind": variant.scheduler}
    if variant.scheduler == "asha":
        scheduler |= {"grace_period": 3}
    return SweepConfig.model_validate(
        {
            "space": SPACE,
            "fusion": {"epochs": EPOCHS},
            "search": {
                "sampler": variant.sampler,
                "num_trials": NUM_TRIALS.get(variant.sampler, 10 * FULL),
                "max_concurrent": 4,
                "seed": seed,
                "start": first_guess(variant.start, problem, seed),
            },
            "scheduler": scheduler,
        }
    )


def first_guess(kind: str, problem: Chain, seed: int) -> list[Values]:
    """Values as a paper might state them: about a fifth of each range away from the best, or as far
    away as the range allows."""
    if kind == "none":
        return []
    if kind == "fair":
        shift = np.random.default_rng(seed).choice([-0.2, 0.2], len(problem.best))
        place = np.clip(problem.best + shift, 0, 1)
    else:
        place = np.where(problem.best < 0.5, 1.0, 0.0)
    return [problem.columns.decode(place)]


def run(task: tuple[str, int, bool]) -> dict[str, list[tuple[float, float]]]:
    """For each variant, the compute at which a better completed trial ended, in whole chains, and
    its noise-free score."""
    warnings.simplefilter("ignore")
    regime, seed, ripples = task
    costs = REGIMES[regime]
    problem, whole = Chain(seed, costs, ripples=ripples), sum(costs.values())
    found = {}
    for name, variant in VARIANTS.items():
        best, curve = -math.inf, []
        sweep = sweep_of(variant, problem, seed)
        for trial in simulate(sweep, problem, reuse=variant.reuse, most=FULL * whole):
            if trial.is_completed and trial.score > best:
                best = trial.score
                curve.append((trial.spent / whole, problem.true_score(trial.values)))
        found[name] = curve
    return found


GRID = np.geomspace(1, FULL, 200)
NOTHING = 0.0
"""The score before the first trial has completed."""


def on_grid(curve: Sequence[tuple[float, float]]) -> np.ndarray:
    """[200] the score at each compute of the grid."""
    spent = np.array([0.0, *(one for one, _ in curve)])
    scores = np.array([NOTHING, *(score for _, score in curve)])
    return scores[np.searchsorted(spent, GRID, side="right") - 1]


def times_less(scores: np.ndarray, wanted: float) -> float:
    """How many times less than the full budget reaches a score; NaN where none does."""
    reached = np.flatnonzero(scores >= wanted)
    return float(FULL / GRID[reached[0]]) if len(reached) else math.nan


def interval(scores: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    """95 % of the ratios of means over problems drawn with replacement; 0 for one not reached."""
    draw = np.random.default_rng(0)
    ratios = []
    for _ in range(1000):
        chosen = draw.integers(0, len(scores), len(scores))
        ratio = times_less(scores[chosen].mean(0), reference[chosen, -1].mean())
        ratios.append(0.0 if math.isnan(ratio) else ratio)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return float(low), float(high)


def rows_of(results: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    """A row for each variant of one regime."""
    scores = {name: np.array([on_grid(result[name]) for result in results]) for name in VARIANTS}
    rows = []
    for name, found in scores.items():
        mean = found.mean(0)
        cells: list[Any] = [float(np.interp(one, GRID, mean)) for one in SHOWN]
        for reference in (REFERENCE, UNREUSED):
            ratio = times_less(mean, scores[reference].mean(0)[-1])
            low, high = interval(found, scores[reference])
            reached = "not reached" if math.isnan(ratio) else f"{ratio:.1f}"
            cells.append(f"{reached} ({low:.1f} to {high:.1f})")
        rows.append([name, *cells])
    return rows


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--problems", type=int, default=20)
    parser.add_argument("--regimes", nargs="+", choices=list(REGIMES), default=list(REGIMES))
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    result: dict[str, Any] = {"machine": common.machine(), "problems": options.problems}
    columns = ["sampler", *(f"at {one}" for one in SHOWN)]
    columns += [f"times less than {one}" for one in ("with reuse", "without")]
    rows: list[list[Any]] = []
    with ProcessPoolExecutor(options.processes) as pool:
        for regime, ripples in itertools.product(options.regimes, (False, True)):
            tasks = [(regime, seed, ripples) for seed in range(options.problems)]
            found = list(pool.map(run, tasks))
            title = f"{regime}{', with local optima' if ripples else ''}"
            result[title] = of_regime = rows_of(found)
            rows += [[title, *[""] * (len(columns) - 1)], *of_regime]
    common.publish("search", result, columns, rows, options.out)


if __name__ == "__main__":
    main()
