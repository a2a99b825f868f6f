"""How much compute does a search take for the same answer? Samplers on problems of known answers.

    python benchmarks/search.py
    python benchmarks/search.py --problems 40 --regimes "10 : 6 : 4" --out search.json
    python benchmarks/search.py --table --problems 30

Study, sampler and scheduler are the real ones, and only training is replaced. By default by
analytic problems of nine knobs in a chain of teacher, students and fusion, four of them continuous
knobs of early stages, whose costs are a regime (`search_problems.py`): a sweep's answer is the
noise-free score of the completed trial that is best on dev. With `--table` by a table of real
trainings (`search_table.py`), where the answer is that trial's dev score, and problems differ by
the sampler's seed only. Compute is counted in whole chains. The full budget is 100 whole chains;
`cost_aware_tpe` gets a quarter of it. Figures are means over analytic problems and medians over
seeds of the table; intervals are 95 % of a bootstrap.
"""

from __future__ import annotations

import functools
import itertools
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from fnmatch import fnmatch
from typing import Any, NamedTuple, TypeAlias

import common
import numpy as np
from search_problems import REGIMES, Chain
from search_simulation import learned_from, simulate
from search_table import HISTORY, TABLE, TABLE_REGIMES, Recorded

from magtkd.config import get_value
from tune.config import SweepConfig
from tune.ledger import TrialsLearned
from tune.space import Values

FULL = 100
"""Whole chains that the samplers which know no cost may take."""
SHOWN = (5, 10, 14, 25, 50, 100)
REFERENCE = "tpe, asha"
UNREUSED = "tpe, asha, no reuse"

AnyProblem: TypeAlias = Chain | Recorded


class Variant(NamedTuple):
    sampler: str
    scheduler: str
    reuse: bool = True
    start: str = "none"
    history: str = "none"


VARIANTS = {
    "random": Variant("random", "fifo"),
    "random, no reuse": Variant("random", "fifo", reuse=False),
    "tpe": Variant("tpe", "fifo"),
    "tpe, no reuse": Variant("tpe", "fifo", reuse=False),
    REFERENCE: Variant("tpe", "asha"),
    UNREUSED: Variant("tpe", "asha", reuse=False),
    "cost_aware_tpe, asha": Variant("cost_aware_tpe", "asha"),
}
OF_CHAINS = {
    "tpe, asha, fair first guess": Variant("tpe", "asha", start="fair"),
    "cost_aware_tpe, asha, fair first guess": Variant("cost_aware_tpe", "asha", start="fair"),
    "cost_aware_tpe, asha, bad first guess": Variant("cost_aware_tpe", "asha", start="bad"),
    "cost_aware_tpe, asha, fair priors": Variant("cost_aware_tpe", "asha", start="fair priors"),
    "cost_aware_tpe, asha, bad priors": Variant("cost_aware_tpe", "asha", start="bad priors"),
    "cost_aware_tpe, asha, after a sweep with another seed": Variant(
        "cost_aware_tpe", "asha", history="seed"
    ),
    "cost_aware_tpe, asha, after a sweep of a similar table": Variant(
        "cost_aware_tpe", "asha", history="similar"
    ),
    "cost_aware_tpe, asha, after a sweep that misleads": Variant(
        "cost_aware_tpe", "asha", history="misleading"
    ),
}
OF_TABLES = {
    "tpe, asha, first guess": Variant("tpe", "asha", start="configuration"),
    "cost_aware_tpe, asha, first guess": Variant("cost_aware_tpe", "asha", start="configuration"),
    "cost_aware_tpe, asha, after a sweep of a synthetic table": Variant(
        "cost_aware_tpe", "asha", history="synthetic"
    ),
}
NUM_TRIALS = {"cost_aware_tpe": 80}
"""A sweep of its own size for a quarter of the budget; the others end with the budget."""
SIMILAR = 0.2
"""How far the optimum of a similar table is away along each column."""


def sweep_of(variant: Variant, problem: AnyProblem, seed: int) -> SweepConfig:
    scheduler: dict[str, Any] = {"kind": variant.scheduler}
    if variant.scheduler == "asha":
        scheduler |= {"grace_period": 3}
    space: dict[str, Any] = problem.space
    start: list[Values] = []
    if variant.start == "configuration" and isinstance(problem, Recorded):
        start = [problem.nearest(configured(problem))]
    elif isinstance(problem, Chain) and variant.start != "none":
        values = problem.columns.decode(first_guess(variant.start, problem, seed))
        if variant.start.endswith("priors"):
            space = {name: {**entry, "prior": values[name]} for name, entry in space.items()}
        else:
            start = [values]
    return SweepConfig.model_validate(
        {
            "space": space,
            "fusion": {"epochs": problem.epochs},
            "search": {
                "sampler": variant.sampler,
                "num_trials": NUM_TRIALS.get(variant.sampler, 10 * FULL),
                "max_concurrent": 4,
                "seed": seed,
                "start": start,
            },
            "scheduler": scheduler,
        }
    )


def configured(problem: Recorded) -> Values:
    """The values of a plain configuration, as a person would start from."""
    base = SweepConfig.model_validate({}).base
    return {name: get_value(base, name) for name in problem.space}


def first_guess(kind: str, problem: Chain, seed: int) -> np.ndarray:
    """[K] a place as a paper might state it: about a fifth of each range away from the best, or as
    far away as the range allows."""
    if kind.startswith("fair"):
        shift = np.random.default_rng(seed).choice([-0.2, 0.2], len(problem.best))
        return np.asarray(np.clip(problem.best + shift, 0, 1))
    return np.where(problem.best < 0.5, 1.0, 0.0)


def history_of(kind: str, problem: AnyProblem, task: Task) -> list[TrialsLearned]:
    """An earlier sweep: of the same problem with other seeds, of one whose optimum is elsewhere, or
    of one that has nothing to do with it."""
    if kind == "none":
        return []
    if kind == "synthetic":
        return [Recorded({}, HISTORY).as_learned()]
    costs = REGIMES[task.regime]
    other = {
        "seed": Chain(task.seed, costs, ripples=task.ripples, repeat=1),
        "similar": Chain(task.seed, costs, ripples=task.ripples, repeat=1, shift=SIMILAR),
        "misleading": Chain(task.seed + 5000, costs, ripples=task.ripples),
    }[kind]
    sweep = sweep_of(VARIANTS["cost_aware_tpe, asha"], other, task.seed + 1000)
    trials = simulate(sweep, other, most=FULL / 4 * other.whole)
    return [learned_from(trials, is_same=kind == "seed")]


class Task(NamedTuple):
    regime: str
    seed: int
    ripples: bool = False
    wanted: str = "*"
    """A pattern of the variants' names."""

    @property
    def problem(self) -> AnyProblem:
        if self.regime in TABLE_REGIMES:
            return Recorded(TABLE_REGIMES[self.regime])
        return Chain(self.seed, REGIMES[self.regime], ripples=self.ripples)

    @property
    def variants(self) -> Mapping[str, Variant]:
        every = VARIANTS | (OF_TABLES if self.regime in TABLE_REGIMES else OF_CHAINS)
        return {name: one for name, one in every.items() if fnmatch(name, self.wanted)}


def run(task: Task) -> dict[str, list[tuple[float, float]]]:
    """For each variant, the compute at which a better completed trial ended, in whole chains, and
    the answer that it gives."""
    warnings.simplefilter("ignore")
    problem, found = task.problem, {}
    for name, variant in task.variants.items():
        best, curve = -math.inf, []
        sweep = sweep_of(variant, problem, task.seed)
        trials = simulate(
            sweep,
            problem,
            reuse=variant.reuse,
            most=FULL * problem.whole,
            learned=history_of(variant.history, problem, task),
        )
        for trial in trials:
            if trial.is_completed and trial.score > best:
                best = trial.score
                curve.append((trial.spent / problem.whole, problem.answer(trial.values)))
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


def interval(
    scores: np.ndarray, reference: np.ndarray, middle: Callable[[np.ndarray], np.ndarray]
) -> tuple[float, float]:
    """95 % of the ratios over problems drawn with replacement; 0 for one not reached."""
    draw = np.random.default_rng(0)
    ratios = []
    for _ in range(1000):
        chosen = draw.integers(0, len(scores), len(scores))
        ratio = times_less(middle(scores[chosen]), float(middle(reference[chosen])[-1]))
        ratios.append(0.0 if math.isnan(ratio) else ratio)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return float(low), float(high)


def rows_of(
    results: Sequence[Mapping[str, Any]], middle: Callable[[np.ndarray], np.ndarray]
) -> list[list[Any]]:
    """A row for each variant of one regime."""
    scores = {name: np.array([on_grid(result[name]) for result in results]) for name in results[0]}
    rows = []
    for name, found in scores.items():
        line = middle(found)
        cells: list[Any] = [float(np.interp(one, GRID, line)) for one in SHOWN]
        for reference in (REFERENCE, UNREUSED):
            if reference not in scores:
                cells.append("not run")
                continue
            ratio = times_less(line, float(middle(scores[reference])[-1]))
            low, high = interval(found, scores[reference], middle)
            reached = "not reached" if math.isnan(ratio) else f"{ratio:.1f}"
            cells.append(f"{reached} ({low:.1f} to {high:.1f})")
        rows.append([name, *cells])
    return rows


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--problems", type=int, default=20)
    parser.add_argument("--regimes", nargs="+", choices=[*REGIMES, *TABLE_REGIMES])
    parser.add_argument("--table", action="store_true", help="replay the recorded table")
    parser.add_argument("--variants", default="*", metavar="PATTERN", help="such as 'cost_aware*'")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    if options.table and not TABLE.is_file():
        raise SystemExit(f"--table: {TABLE} is not there; search_table.py makes it from a sweep")
    result: dict[str, Any] = {"machine": common.machine(), "problems": options.problems}
    columns = ["sampler", *(f"at {one}" for one in SHOWN)]
    columns += [f"times less than {one}" for one in ("with reuse", "without")]
    rows: list[list[Any]] = []
    kinds = itertools.product(
        options.regimes or list(TABLE_REGIMES if options.table else REGIMES),
        (False,) if options.table else (False, True),
    )
    middle = functools.partial(np.median if options.table else np.mean, axis=0)
    with ProcessPoolExecutor(options.processes) as pool:
        for regime, ripples in kinds:
            tasks = [
                Task(regime, seed, ripples, options.variants) for seed in range(options.problems)
            ]
            found = list(pool.map(run, tasks))
            title = f"{regime}{', with local optima' if ripples else ''}"
            result[title] = of_regime = rows_of(found, middle)
            rows += [[title, *[""] * (len(columns) - 1)], *of_regime]
    common.publish("search", result, columns, rows, options.out)


if __name__ == "__main__":
    main()
