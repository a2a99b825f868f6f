"""What a confirmation found: its configurations as rows, and what is done with the chosen one."""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import IO, Any

from rich.table import Table

from magtkd.config import dump_yaml
from magtkd.errors import DataError, SweepError, and_more
from magtkd.metrics import OVERALL
from magtkd.pipeline import Outcome
from magtkd.scoring import score_split
from magtkd.store import Store
from tune.ledger import (
    RoundDecided,
    Standing,
    SweepLayout,
    SweepState,
    TestRevealed,
    TrialState,
    TrialStatus,
    find_confirmations,
    open_ledger,
    read_sweep,
)
from tune.results.formats import metric_header, print_table, shown_score
from tune.results.selection import EXPORTED

__all__ = [
    "Confirmation",
    "ConfirmedRow",
    "Verdict",
    "best_lines",
    "confirmation_json",
    "confirmation_lines",
    "confirmed_config",
    "confirmed_rows",
    "find_confirmation",
    "print_confirmation",
    "reveal_confirmed",
    "round_lines",
]


class Verdict(StrEnum):
    """What the race says of a configuration."""

    CHOSEN = "chosen"
    OPEN = "cannot be distinguished"
    WORSE = "worse"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class ConfirmedRow:
    """A configuration of a confirmation; figures are None where a trial of it failed."""

    rank: int
    trial: int
    """The sweep's trial that had it."""
    verdict: Verdict
    num_seeds: int
    """After which the verdict was found."""
    mean: float | None
    """Of the objective on dev, over its seeds."""
    deviation: float | None
    """The standard deviation over seeds, of a sample."""
    low: float | None
    """The lower end of the mean's confidence interval, over seeds and conversations."""
    high: float | None
    """Its upper end."""
    gap: float | None
    """By how much it was behind the best."""
    p: float | None
    """The p-value of that, corrected for the number of comparisons."""
    in_sweep: float
    """The objective of the sweep's trial."""
    optimism: float | None
    """By how much that is above the mean."""
    message: str | None
    """Why it failed."""


@dataclass(frozen=True, kw_only=True)
class Confirmation:
    """A confirmation that is over, and has chosen a configuration."""

    layout: SweepLayout
    state: SweepState
    """The confirmation's own."""

    @property
    def chosen(self) -> int:
        """The sweep's trial that has the chosen configuration."""
        found = self.state.chosen
        assert found is not None, "find_confirmation gives those with one"
        return found

    @property
    def trials(self) -> list[TrialState]:
        """The trials of the chosen configuration, one a seed."""
        state = self.state
        assert state.race is not None
        return [
            trial
            for trial in state.trials.values()
            if trial.state == TrialStatus.COMPLETED
            and state.race.entry_of(trial.suggested).trial == self.chosen
        ]

    @property
    def seeds(self) -> list[int]:
        """Those of the chosen configuration."""
        return [trial.suggested.seed for trial in self.trials if trial.suggested.seed is not None]

    @property
    def row(self) -> ConfirmedRow:
        """The chosen configuration's."""
        return confirmed_rows(self.state)[0]

    @property
    def test(self) -> dict[str, dict[str, float]] | None:
        """Mean and deviation of each test score over all seeds, once they were revealed."""
        revealed = [trial.test for trial in self.trials]
        if not all(revealed):
            return None
        found = {}
        for name in OVERALL:
            values = [getattr(one, name) for one in revealed]
            if None not in values:
                deviation = statistics.stdev(values)
                found[name] = {"mean": statistics.fmean(values), "deviation": deviation}
        return found

    def num_since(self, sweep_state: SweepState) -> int:
        """Trials that the sweep has completed since it was confirmed."""
        assert self.state.race is not None
        return sweep_state.count()[TrialStatus.COMPLETED] - self.state.race.num_completed

    def to_json(self) -> dict[str, Any]:
        """The confirmation as a JSON object, with what was revealed."""
        return confirmation_json(self.state) | {"test": self.test}


def confirmation_json(state: SweepState) -> dict[str, Any]:
    """A confirmation as a JSON object, over or not.

    Args:
        state: the confirmation's.
    """
    race = state.race
    assert race is not None
    return {
        "sweep": state.name,
        "confirmation": race.name,
        "metric": state.objectives[0].metric,
        "chosen": state.chosen,
        "is_over": state.is_confirmed,
        "seeds": list(race.seeds),
        "confidence": race.confidence,
        "vary": race.vary,
        "configurations": [asdict(row) for row in confirmed_rows(state)],
    }


def find_confirmation(layout: SweepLayout, sweep_state: SweepState) -> Confirmation | None:
    """The latest confirmation of a sweep that is over and has a choice.

    Raises:
        SweepError: the ledger of one is damaged, or another sweep's.
        StorageLostError: an object store does not answer or refuses.
    """
    for place in reversed(find_confirmations(layout, sweep_state.sweep_id)):
        state = read_sweep(place)
        if state.chosen is not None:
            found = Confirmation(layout=place, state=state)
            if len(found.seeds) < 2:
                raise SweepError(
                    f"{place.ledger}: has {len(found.seeds)} completed trials of its choice, trial "
                    f"{state.chosen}; restore the ledger from a copy"
                )
            return found
    return None


def confirmed_rows(state: SweepState) -> list[ConfirmedRow]:
    """A row for each configuration that a confirmation has compared so far: the chosen one, those
    that cannot be distinguished from it, those that were worse, and those that failed.

    Args:
        state: the confirmation's.
    """
    assert state.race is not None
    last: dict[int, tuple[int, Standing]] = {}
    for decided in state.rounds:
        for one in decided.standings:
            last[one.trial] = decided.num_seeds, one
    scores = {entry.trial: entry.score for entry in state.race.entries}
    sign = state.objectives[0].sign
    rows = []
    for num_seeds, one in last.values():
        verdict = _verdict(one, state.chosen)
        optimism = None if one.mean is None else sign * (scores[one.trial] - one.mean)
        rows.append((verdict, num_seeds, one, optimism))
    order = list(Verdict)
    rows.sort(key=lambda row: (order.index(row[0]), -row[1], -sign * (row[2].mean or 0.0)))
    return [
        ConfirmedRow(
            rank=rank,
            trial=one.trial,
            verdict=verdict,
            num_seeds=num_seeds,
            mean=one.mean,
            deviation=one.deviation,
            low=one.low,
            high=one.high,
            gap=one.gap,
            p=one.p,
            in_sweep=scores[one.trial],
            optimism=optimism,
            message=one.failed,
        )
        for rank, (verdict, num_seeds, one, optimism) in enumerate(rows, start=1)
    ]


def _verdict(one: Standing, chosen: int | None) -> Verdict:
    if one.failed is not None:
        return Verdict.FAILED
    if one.is_out:
        return Verdict.WORSE
    return Verdict.CHOSEN if one.trial == chosen else Verdict.OPEN


# --- for people -------------------------------------------------------------------------------


def print_confirmation(state: SweepState, stream: IO[str]) -> None:
    """Print the configurations of a confirmation as a table, and what follows from it.

    Args:
        state: the confirmation's.
        stream: where to.
    """
    assert state.race is not None
    metric, confidence = state.objectives[0].metric, f"{100 * state.race.confidence:g} %"
    rows = confirmed_rows(state)
    columns = {
        "rank": [str(row.rank) for row in rows],
        "trial": [str(row.trial) for row in rows],
        f"{metric_header(metric)}, mean": [_with_deviation(metric, row) for row in rows],
        f"{confidence} interval": [_interval(metric, row) for row in rows],
        "seeds": [str(row.num_seeds) for row in rows],
        "behind": [shown_score(metric, row.gap) for row in rows],
        "p": ["" if row.p is None or not row.gap else f"{row.p:.3g}" for row in rows],
        "in the sweep": [shown_score(metric, row.in_sweep) for row in rows],
        "optimism": [shown_score(metric, row.optimism) for row in rows],
        "verdict": [
            f"{row.verdict}: {row.message}" if row.message else str(row.verdict) for row in rows
        ],
    }
    table = Table(box=None, pad_edge=False)
    for header, cells in columns.items():
        table.add_column(header, justify="left" if header == "verdict" else "right")
        table.columns[-1].min_width = max([4, *map(len, cells)]) if cells else None
    for texts in zip(*columns.values(), strict=True):
        table.add_row(*texts)
    print_table(table, stream)
    for line in confirmation_lines(state):
        print(line, file=stream)


def _with_deviation(metric: str, row: ConfirmedRow) -> str:
    if row.mean is None:
        return ""
    return f"{shown_score(metric, row.mean)} ± {shown_score(metric, row.deviation)}"


def _interval(metric: str, row: ConfirmedRow) -> str:
    if row.low is None:
        return ""
    return f"{shown_score(metric, row.low)} to {shown_score(metric, row.high)}"


def confirmation_lines(state: SweepState) -> list[str]:
    """What follows from a confirmation, in sentences."""
    assert state.race is not None
    race, rows = state.race, confirmed_rows(state)
    metric, confidence = state.objectives[0].metric, f"{100 * race.confidence:g} %"
    lines = []
    if state.is_confirmed and state.chosen is None:
        lines.append("nothing is chosen: each configuration failed with a seed")
    elif state.is_confirmed:
        row = rows[0]
        lines.append(
            f"chosen: trial {row.trial}, {metric_header(metric)} {_with_deviation(metric, row)} "
            f"over {row.num_seeds} seeds ({_seeds(race.seeds)}); the sweep had "
            f"{shown_score(metric, row.in_sweep)} with its own seed"
        )
        alike = [str(one.trial) for one in rows if one.verdict == Verdict.OPEN]
        if alike:
            are = "trial" if len(alike) == 1 else "trials"
            lines.append(f"cannot be distinguished from it: {are} {and_more(alike, 20)}")
        elif len(rows) > 1:
            lines.append(f"all others are worse, with {confidence} confidence, or failed")
    given, most = len(state.trials), len(race.entries) * len(race.seeds)
    spared = f"; {most - given} were spared" if state.is_confirmed and most > given else ""
    records = [trial.stages.get("fusion") for trial in state.trials.values()]
    reused = sum(one is not None and one.outcome == Outcome.REUSED for one in records)
    before = f", {reused} of which were there" if reused else ""
    lines.append(f"{given} of at most {most} trainings{before}{spared}")
    return lines


def round_lines(state: SweepState, decided: RoundDecided) -> list[str]:
    """What a round has decided: who leads, and who gets no more seeds.

    Args:
        state: the confirmation's.
        decided: the round.
    """
    metric, best = state.objectives[0].metric, decided.standings[0]
    lines = []
    if best.mean is not None:
        leads = f"trial {best.trial} with {metric_header(metric)} {shown_score(metric, best.mean)}"
        lines.append(f"after {decided.num_seeds} seeds the best is {leads}")
    for one in decided.standings:
        if one.failed is not None:
            lines.append(f"trial {one.trial} is out: {one.failed}")
        elif one.is_out:
            by = f"{shown_score(metric, one.gap)} behind, p = {one.p:.2g}"
            lines.append(f"trial {one.trial} is out: {by}")
    return lines


def best_lines(confirmation: Confirmation, sweep_state: SweepState) -> list[str]:
    """What `best` says of a sweep that was confirmed, its revealed test scores among it."""
    row, state = confirmation.row, confirmation.state
    metric, seeds = state.objectives[0].metric, _seeds(confirmation.seeds)
    lines = [
        f"confirmed: trial {row.trial}, {metric_header(metric)} {_with_deviation(metric, row)} "
        f"over {len(confirmation.seeds)} fresh seeds ({seeds})"
    ]
    if test := confirmation.test:
        shown = ", ".join(
            f"{metric_header(f'test/{name}')} {100 * one['mean']:.2f} ± "
            f"{100 * one['deviation']:.2f}"
            for name, one in test.items()
        )
        lines.append(f"revealed, over the same seeds: {shown}")
    if number := confirmation.num_since(sweep_state):
        trials = "a trial" if number == 1 else f"{number} trials"
        again = shlex.join(["magtkd", "confirm", state.name, "--again"])
        lines.append(f"the sweep has completed {trials} since; to confirm it anew: {again}")
    return lines


def _seeds(seeds: Sequence[int]) -> str:
    if list(seeds) == list(range(seeds[0], seeds[0] + len(seeds))):
        return f"{seeds[0]} to {seeds[-1]}"
    return ", ".join(map(str, seeds))


# --- with the chosen one ----------------------------------------------------------------------


def confirmed_config(confirmation: Confirmation) -> str:
    """The chosen configuration with its first seed as YAML for `magtkd train`, led by where it came
    from and by all seeds."""
    state, row = confirmation.state, confirmation.row
    race = state.race
    assert race is not None
    metric = state.objectives[0].metric
    seeds = " ".join(map(str, confirmation.seeds))
    lines = [
        f"{EXPORTED}{row.trial} of sweep {state.name}, chosen by its confirmation {race.name!r}",
        f"# on {len(confirmation.seeds)} fresh seeds: {seeds}",
        f"# There {metric} is {row.mean} on average, with a standard deviation of {row.deviation}",
        f"# and a {100 * race.confidence:g} % interval of {row.low} to {row.high},",
        f"# with {', '.join(f'{name} {version}' for name, version in state.versions.items())}.",
        "# This is the first seed; the others: magtkd train FILE seed=N",
    ]
    config = confirmation.trials[0].candidate.config(state.sweep.base)
    return "\n".join(lines) + "\n" + dump_yaml(config)


def reveal_confirmed(confirmation: Confirmation, store: Store) -> None:
    """Compute the test metrics of the chosen configuration with each of its seeds, and record in
    the confirmation's ledger that they were seen. Those that were are not recorded again.

    Args:
        confirmation: the confirmation.
        store: where its artifacts are.

    Raises:
        SweepError: the confirmation's ledger is in use, or the table has no test split.
        ArtifactError: an artifact is missing or damaged; nothing is recorded then.
    """
    found = []
    for trial in confirmation.trials:
        if trial.test is None:
            data = store.read("data", trial.stages["data"].key).table
            fusion = store.read("fusion", trial.stages["fusion"].key, weights=False).table
            try:
                test = score_split(data, fusion, "test")
            except DataError as error:
                raise SweepError(f"sweep {confirmation.state.name!r}: {error}") from None
            found.append(TestRevealed(trial=trial.number, test=test))
    if found:
        with open_ledger(confirmation.layout, resume=True) as ledger:
            for event in found:
                ledger.append(event)
