"""What does NePS's PriorBand find on the problems of `search.py`, beside `cost_aware_tpe`
with the same priors?

    pip install neural-pipeline-search
    python benchmarks/search_neps.py
    python benchmarks/search_neps.py --problems 20 --regimes "10 : 6 : 4"

NePS is no dependency of the project: install it where both fit together. Its samplers are asked and
told one trial at a time; stages that it happens to repeat cost nothing, as for all others, and a
configuration that is promoted to more epochs pays for these only. Scores are means over problems of
the noise-free score of the trial with all epochs that is best on dev, by whole chains of compute.
"""

from __future__ import annotations

import logging
import math
import multiprocessing
import warnings
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

import common
import numpy as np
from search import GRID, Variant, first_guess, on_grid, sweep_of
from search_problems import REGIMES, Chain
from search_simulation import simulate

from tune.space import Values

FULL = 25
"""Whole chains."""
SHOWN = (5, 10, 14, 25)
EPOCHS = "epochs"
KINDS = ("priorband", "pibo")


class Task(NamedTuple):
    regime: str
    seed: int
    kinds: tuple[str, ...]


def neps_space(problem: Chain, priors: Values) -> Any:
    import neps.space as neps_space

    found: dict[str, Any] = {}
    for name, entry in problem.space.items():
        shared: dict[str, Any] = {"prior": priors.get(name)}
        if name in priors:
            shared["prior_confidence"] = "medium"
        if "float" in entry:
            found[name] = neps_space.HPOFloat(
                *entry["float"], log=entry.get("log", False), **shared
            )
        else:
            found[name] = neps_space.HPOInteger(*entry["int"], **shared)
    found[EPOCHS] = neps_space.HPOInteger(3, problem.epochs, is_fidelity=True)
    return neps_space.SearchSpace(found)


def run_neps(kind: str, problem: Chain, priors: Values, seed: int) -> list[tuple[float, float]]:
    """The compute at which a better whole trial ended, and its answer."""
    import torch
    from neps.optimizers.algorithms import PredefinedOptimizers
    from neps.optimizers.ask_and_tell import AskAndTell

    np.random.seed(seed)  # NePS draws from the global generators
    torch.manual_seed(seed)
    options: dict[str, Any] = {"base": "asha"} if kind == "priorband" else {"ignore_fidelity": True}
    asked = AskAndTell(PredefinedOptimizers[kind](neps_space(problem, priors), **options))
    ready: set[str] = set()
    trained: dict[str, int] = {}
    spent, best, curve = 0.0, -math.inf, []
    while spent < FULL * problem.whole:
        trial = asked.ask()
        values = {name: one for name, one in trial.config.items() if name != EPOCHS}
        epochs = int(trial.config.get(EPOCHS, problem.epochs))
        plan = problem.plan(values)
        *upstream, last = plan.keys
        for stage in upstream:
            if plan.keys[stage] not in ready:
                ready.add(plan.keys[stage])
                spent += problem.seconds(stage, values)
        new = max(0, epochs - trained.get(plan.keys[last], 0))
        trained[plan.keys[last]] = epochs
        spent += new * problem.seconds(last, values) / problem.epochs
        score = max(problem.curve(values)[:epochs])
        asked.tell(trial, -score)
        if epochs == problem.epochs and score > best:
            best = score
            curve.append((spent / problem.whole, problem.answer(values)))
    return curve


def run_ours(start: str, problem: Chain, seed: int) -> list[tuple[float, float]]:
    best, curve = -math.inf, []
    sweep = sweep_of(Variant("cost_aware_tpe", "asha", start=start), problem, seed)
    for trial in simulate(sweep, problem, most=FULL * problem.whole):
        if trial.is_completed and trial.score > best:
            best = trial.score
            curve.append((trial.spent / problem.whole, problem.answer(trial.values)))
    return curve


def run(task: Task) -> dict[str, list[tuple[float, float]]]:
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    problem, found = Chain(task.seed, REGIMES[task.regime]), {}
    for guess in ("fair", "bad"):
        start = f"{guess} priors"
        priors = problem.columns.decode(first_guess(start, problem, task.seed))
        for kind in task.kinds:
            found[f"NePS {kind}, {start}"] = run_neps(kind, problem, priors, task.seed)
        found[f"cost_aware_tpe, {start}"] = run_ours(start, problem, task.seed)
    found["cost_aware_tpe, no priors"] = run_ours("none", problem, task.seed)
    return found


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--problems", type=int, default=20)
    parser.add_argument("--regimes", nargs="+", choices=list(REGIMES), default=list(REGIMES))
    parser.add_argument(
        "--kinds", nargs="+", choices=KINDS, default=["priorband"], help="pibo takes minutes each"
    )
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    result: dict[str, Any] = {"machine": common.machine(), "problems": options.problems}
    rows: list[list[Any]] = []
    # A process that is forked after torch has begun to compute may hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.processes, context) as pool:
        for regime in options.regimes:
            tasks = [Task(regime, seed, tuple(options.kinds)) for seed in range(options.problems)]
            found = list(pool.map(run, tasks))
            rows.append([regime, *[""] * len(SHOWN)])
            for name in found[0]:
                line = np.mean([on_grid(one[name]) for one in found], axis=0)
                rows.append([name, *(float(np.interp(one, GRID, line)) for one in SHOWN)])
            result[regime] = rows[-len(found[0]) :]
    columns = ["sampler", *(f"at {one}" for one in SHOWN)]
    common.publish("search beside NePS", result, columns, rows, options.out)


if __name__ == "__main__":
    main()
