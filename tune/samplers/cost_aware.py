"""`cost_aware_tpe`: a tree-structured Parzen estimator that knows what is trained already."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from magtkd.errors import InputError, SweepError
from magtkd.pipeline import Plan
from tune.samplers.base import EarlierTrial, Sampler, trial_seed
from tune.samplers.elsewhere import Elsewhere
from tune.samplers.parzen import Belief, Columns, Parzen, normal_places
from tune.samplers.prefixes import Prefix, Prefixes
from tune.samplers.ranking import best_so_far, num_good, shares_beaten
from tune.space import Problem, Values

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

__all__ = ["CostAwareSearch", "CostAwareTpe"]

NUM_STARTUP = 10
"""Trials that are spread over the space before the densities are used."""
NUM_SPREAD = 5
"""Distinct draws of the upstream names among these."""
NUM_CANDIDATES = 32
"""Of each of the two kinds: drawn anew, and with a prefix that is trained."""
FREE_SHARE = 0.1
"""Of the suggestions that are drawn anew, whatever they cost, so that the search does not stick to
the first prefixes."""
FIRST_SHARING, MOST_SHARING = 4.0, 16.0
"""Trials over which the cost of a new artifact is spread: at first, and at most."""
NUM_PREFIXES = 4
"""Trained prefixes that are continued, those with the best trials."""
RUNNING, FAILED = -1.0, -2.0
"""Ranks of trials that are worse than all that ended."""


@dataclass
class _Trial:
    values: Values
    point: np.ndarray
    """[K] its values as `Columns` has them."""
    plan: Plan | None
    """None where its values are not legal together."""
    curve: dict[int, float] = field(default_factory=dict)
    best: np.ndarray | None = None
    """[E] of a trial that has ended; see `best_so_far`."""
    has_failed: bool = False


@dataclass(frozen=True)
class _Candidate:
    values: Values
    point: np.ndarray
    plan: Plan


class CostAwareSearch:
    """Suggests values by expected improvement over the cost that remains.

    The expected improvement is that of TPE (Bergstra et al., 2011, equation 6), with densities over
    all names together. It is divided by the seconds that a trial adds: stages whose artifact is
    there, or is in training, cost nothing, and the cost of a new one is spread over the trials that
    are expected to share it. The divisor's power falls from 1 to 0 as the budget is used (cost
    cooling, Lee et al., 2020). Half of the candidates keep a trained prefix and draw the other
    names from the density of good trials given that prefix.

    Usable without Ray, a store or a ledger:

        search = CostAwareSearch(problem, plan, seconds)
        for number in range(100):
            values = search.ask(number, used=number / 100)
            search.begin(number, values)
            for epoch, score in train(values):
                search.report(number, epoch, score)
            search.end(number)

    What it suggests follows from the problem's seed, the trial's number and what it was given.

    Args:
        problem: what is searched; `plan` and `seconds` stand for the stages.
        plan: the keys of a trial's stages, the last one being the trial's own.
        seconds: what training a stage takes, by the stage's name and a trial's values.
    """

    def __init__(
        self,
        problem: Problem,
        plan: Callable[[Values], Plan],
        seconds: Callable[[str, Values], float],
    ) -> None:
        self._problem, self._plan_of, self._seconds = problem, plan, seconds
        self._sign = 1.0 if problem.objectives[0].mode == "max" else -1.0
        self._columns = Columns(problem.space)
        self._stages = problem.space.sections
        self._trials: dict[int, _Trial] = {}
        self._stored: set[str] = set()
        self._suggested: set[str] = set()
        self._keys: defaultdict[str, set[str]] = defaultdict(set)
        self._num_trials: Counter[str] = Counter()
        self._kept_prefixes: defaultdict[tuple[bool, ...], Prefixes] = defaultdict(Prefixes)
        self._ranked: dict[int, float] = {}
        self._earlier: list[tuple[np.ndarray, np.ndarray]] = []
        """Points [K] and `best_so_far` [E] of trials of earlier sweeps of the same problem."""
        self._elsewhere: list[Elsewhere] = []
        self._startup = self._spread()

    # --- what happens -------------------------------------------------------------------------

    def add_stored(self, keys: Iterable[str]) -> None:
        """Artifacts with these keys are there."""
        self._stored.update(keys)

    def learn(self, trials: Sequence[EarlierTrial], *, is_same: bool) -> None:
        """Trials of an earlier sweep, before the first own one.

        Args:
            trials: those whose values are in this space.
            is_same: whether the table, the objective and all values that are not searched are
                those of this sweep, so that scores can be compared. Else the order of the trials
                within their sweep counts, and less the more own trials there are.
        """
        points = [
            self._columns.encode(self._problem.space.own_values(one.values)) for one in trials
        ]
        curves = [
            {epoch: self._sign * value for epoch, value in one.curve.items()} for one in trials
        ]
        most = max((epoch for curve in curves for epoch in curve), default=1)
        epochs = self._problem.max_epochs if is_same else most
        best = [best_so_far(curve, epochs) for curve in curves]
        if is_same:
            self._earlier += zip(points, best, strict=True)
        elif trials:
            found = Elsewhere(np.array(points), np.array(best), self._columns.num_choices)
            self._elsewhere.append(found)

    def begin(self, number: int, values: Values) -> None:
        """A trial with these values begins; its stages are in training from now on."""
        own = self._problem.space.own_values(values)
        plan = self._plan(values)
        self._trials[number] = trial = _Trial(values, self._columns.encode(own), plan)
        for one in self._elsewhere:
            one.expect(trial.point)
        if plan is not None:
            self._add_prefixes(trial, plan)
            for stage, key in plan.keys.items():
                self._suggested.add(key)
                self._num_trials[stage] += 1
                self._keys[stage].add(key)

    def report(self, number: int, epoch: int, value: float) -> None:
        """The objective after an epoch of a running trial."""
        self._trials[number].curve.setdefault(epoch, self._sign * value)

    def end(self, number: int, *, has_failed: bool = False) -> None:
        """A trial has ended: it completed, was stopped, or has failed."""
        trial = self._trials[number]
        trial.has_failed = has_failed or not trial.curve
        curve = {} if trial.has_failed else trial.curve
        trial.best = best_so_far(curve, self._problem.max_epochs)

    # --- suggestions --------------------------------------------------------------------------

    def ask(self, number: int, used: float) -> Values:
        """The values of a new trial.

        Args:
            number: its number.
            used: the share of the budget that is used, from 0 to 1.
        """
        generator = np.random.default_rng(trial_seed(self._problem.seed, number))
        ranks = self._ranks()
        own = np.where(ranks == RUNNING, math.nan, ranks)[len(self._earlier) :]
        agreements = [one.agreement(own) for one in self._elsewhere]
        is_known = bool(agreements) and generator.random() < max(agreements)
        if len(ranks) < NUM_STARTUP and not is_known:
            candidates = self._candidates(self._startup[number % NUM_STARTUP][None], {})
            if candidates:
                return candidates[0].values
        pairs = zip(self._elsewhere, agreements, strict=True)
        good, bad = self._densities(ranks, [one.weight(agreed, len(own)) for one, agreed in pairs])
        is_free = generator.random() < FREE_SHARE
        candidates = self._drawn(generator, good, is_free=is_free)
        if not candidates:
            return self._any(generator)
        points = np.array([one.point for one in candidates])
        scores = _improvement(good.log_density(points) - bad.log_density(points), self._gamma)
        if not is_free:
            scores = scores - max(1 - used, 0.0) * np.log(self._costs(candidates))
        return candidates[int(np.argmax(scores))].values

    def _spread(self) -> np.ndarray:
        """[NUM_STARTUP, K] points that fill the space, with few distinct prefixes; where there are
        priors, every other point is near them."""
        from scipy.stats import qmc

        sequence = qmc.Sobol(len(self._columns.names), seed=self._problem.seed)
        points = sequence.random_base2(math.ceil(math.log2(NUM_STARTUP)))[:NUM_STARTUP]
        choices = self._columns.num_choices
        belief = self._columns.belief
        if belief is not None:
            near = normal_places(points[::2], belief.point, belief.widths)
            points[::2] = np.where(choices > 0, points[::2], near)
        last = self._last_stage
        for column, name in enumerate(self._columns.names):
            if self._stages[name] != {last}:
                points[:, column] = points[np.arange(NUM_STARTUP) % NUM_SPREAD, column]
        places = np.floor(points * np.maximum(choices, 1))
        if belief is not None:
            has_prior = (choices > 0) & ~np.isnan(belief.point)
            places[::2] = np.where(has_prior, belief.point, places[::2])
        return np.asarray(np.where(choices > 0, places, points))

    @property
    def _last_stage(self) -> str:
        plan = self._plan({})
        return "fusion" if plan is None else _last(plan)

    @property
    def _gamma(self) -> float:
        number = len(self._trials) + len(self._earlier)
        return num_good(number) / max(number, 1)

    def _densities(self, ranks: np.ndarray, weights: Sequence[float]) -> tuple[Parzen, Parzen]:
        """Of the good trials, and of all others: those that run and those that failed too.

        Args:
            ranks: see `_ranks`.
            weights: of the trials of each other table.
        """
        self._ranked = dict(zip(self._trials, ranks[len(self._earlier) :].tolist(), strict=True))
        order = np.argsort(-ranks, kind="stable")
        number = num_good(len(order))
        good = self._density(
            order[:number], [one.good for one in self._elsewhere], weights, self._columns.belief
        )
        others = [one.others for one in self._elsewhere]
        return good, self._density(order[number:], others, weights, None)

    def _density(
        self,
        chosen: np.ndarray,
        elsewhere: Sequence[np.ndarray],
        weights: Sequence[float],
        belief: Belief | None,
    ) -> Parzen:
        """Of some trials by their places, those of earlier sweeps before own ones, and of points of
        other tables."""
        points = [
            *(point for point, _ in self._earlier),
            *(one.point for one in self._trials.values()),
        ]
        of_elsewhere = [
            np.full(len(one), weight) for one, weight in zip(elsewhere, weights, strict=True)
        ]
        width = len(self._columns.names)
        return Parzen(
            np.concatenate(
                [*elsewhere, np.array([points[one] for one in sorted(chosen)]).reshape(-1, width)]
            ),
            self._columns.num_choices,
            belief,
            np.concatenate([*of_elsewhere, np.ones(len(chosen))]),
        )

    def _ranks(self) -> np.ndarray:
        """[N] the share of trials, earlier ones first, that each trial beats; one that runs counts
        as beaten by all, which keeps the next suggestions away from it (constant liar), and so does
        one that failed."""
        trials = self._trials.values()
        best = [*(best for _, best in self._earlier), *(one.best for one in trials)]
        ranks = np.full(len(best), RUNNING)
        has_ended = [place for place, one in enumerate(best) if one is not None]
        if has_ended:
            ranks[has_ended] = shares_beaten(np.array([best[place] for place in has_ended]))
        has_failed = [False] * len(self._earlier) + [one.has_failed for one in trials]
        return np.where(has_failed, FAILED, ranks)

    def _drawn(
        self, generator: np.random.Generator, good: Parzen, *, is_free: bool
    ) -> list[_Candidate]:
        nothing = np.full(len(self._columns.names), math.nan)
        found = self._candidates(good.sample(generator, nothing, NUM_CANDIDATES), {})
        prefixes = [] if is_free else self._prefixes()
        for _ in range(NUM_CANDIDATES if prefixes else 0):
            best = prefixes[int(generator.integers(len(prefixes)))]
            kept = best[min(int(generator.geometric(0.5)), len(best)) - 1]
            found += self._candidates(good.sample(generator, kept.point, 1), kept.values)
        return found

    def _prefixes(self) -> list[list[Prefix]]:
        """For each set of stages that can be kept, the best trained prefixes."""
        ranks = np.array([self._ranked[number] for number in self._trials])
        found = []
        for prefixes in self._kept_prefixes.values():
            best = np.full(len(prefixes.found), FAILED)
            np.maximum.at(best, prefixes.members, ranks[prefixes.trials])
            order = np.argsort(-best, kind="stable")[:NUM_PREFIXES]
            found.append([prefixes.found[one] for one in order if best[one] > FAILED])
        return [best for best in found if best]

    def _add_prefixes(self, trial: _Trial, plan: Plan) -> None:
        for stages in _closed(plan):
            keeps = tuple(bool(self._stages[name] & stages) for name in self._columns.names)
            if any(keeps) and not all(keeps):
                keys = tuple(plan.keys[stage] for stage in plan.keys if stage in stages)
                names = zip(self._columns.names, keeps, strict=True)
                kept = {
                    name: trial.values[name]
                    for name, is_kept in names
                    if is_kept and name in trial.values
                }
                prefix = Prefix(kept, np.where(keeps, trial.point, math.nan))
                self._kept_prefixes[keeps].add(len(self._trials) - 1, keys, prefix)

    def _candidates(self, points: np.ndarray, kept: Values) -> list[_Candidate]:
        """Those of the points, with the values that are kept, that are legal and no trial yet."""
        space, base = self._problem.space, self._problem.base
        owns = (self._columns.decode(one) | kept for one in points)
        found = [self._candidate(space.complete(own, base)) for own in owns]
        return [
            one
            for one in found
            if one is not None and one.plan.keys[_last(one.plan)] not in self._suggested
        ]

    def _candidate(self, values: Values) -> _Candidate | None:
        plan = self._plan(values)
        if plan is None:
            return None
        own = self._problem.space.own_values(values)
        return _Candidate(values, self._columns.encode(own), plan)

    def _any(self, generator: np.random.Generator) -> Values:
        """Values where no candidate is new: all of a small space were tried."""
        nothing = np.full(len(self._columns.names), math.nan)
        empty = Parzen(np.empty((0, len(nothing))), self._columns.num_choices)
        drawn = self._columns.decode(empty.sample(generator, nothing, 1)[0])
        return self._problem.space.complete(drawn, self._problem.base)

    def _costs(self, candidates: Sequence[_Candidate]) -> np.ndarray:
        """[M] the seconds that each candidate adds."""
        sharing = self._sharing()
        costs = []
        for one in candidates:
            last = _last(one.plan)
            cost = self._seconds(last, one.values)
            for stage, key in one.plan.keys.items():
                if stage != last and key not in self._stored and key not in self._suggested:
                    cost += self._seconds(stage, one.values) / sharing.get(stage, FIRST_SHARING)
            costs.append(max(cost, 1e-6))
        return np.array(costs)

    def _sharing(self) -> dict[str, float]:
        """How many trials share an artifact of each stage, by those so far."""
        shares = {stage: self._num_trials[stage] / len(keys) for stage, keys in self._keys.items()}
        return {
            stage: min(max(share, FIRST_SHARING), MOST_SHARING) for stage, share in shares.items()
        }

    def _plan(self, values: Values) -> Plan | None:
        try:
            return self._plan_of(values)
        except InputError:
            return None


def _last(plan: Plan) -> str:
    return list(plan.keys)[-1]


def _improvement(log_ratios: np.ndarray, gamma: float) -> np.ndarray:
    """Logarithm of the expected improvement, up to a constant, from log l(x) / g(x)."""
    return -np.logaddexp(math.log(max(gamma, 1e-9)), math.log(max(1 - gamma, 1e-9)) - log_ratios)


def _closed(plan: Plan) -> list[set[str]]:
    """The sets of stages before the last that hold, with a stage, all that it reads; largest
    first."""
    upstream = list(plan.keys)[:-1]
    found: list[set[str]] = [set()]
    for stage in upstream:
        found += [one | {stage} for one in found if set(plan.reads[stage]) <= one]
    return sorted((one for one in found if one), key=lambda one: (-len(one), sorted(one)))


class CostAwareTpe(Sampler):
    """TPE whose expected improvement is divided by the cost that remains; see `CostAwareSearch`."""

    name: ClassVar[str] = "cost_aware_tpe"
    shares_stages = True
    reads_knowledge = True

    def check(self, problem: Problem) -> None:
        super().check(problem)
        if len(problem.objectives) > 1:
            raise SweepError(
                f"search.sampler: {self.name} takes one objective, not "
                f"{len(problem.objectives)}; use tpe or nsga2"
            )

    def search(
        self,
        problem: Problem,
        plan: Callable[[Values], Plan],
        seconds: Callable[[str, Values], float],
    ) -> CostAwareSearch:
        return CostAwareSearch(problem, plan, seconds)

    def build(self, problem: Problem, number: int) -> BaseSampler:
        import optuna

        return optuna.samplers.RandomSampler(seed=trial_seed(problem.seed, number))
