"""What is done with a selected trial: export its configuration, reveal its test metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from magtkd.config import dump_yaml
from magtkd.errors import DataError, SweepError, and_more
from magtkd.metrics import Scores
from magtkd.prediction import Predictor
from magtkd.scoring import score_split
from magtkd.store import Store
from tune.ledger import SweepLayout, SweepState, TestRevealed, open_ledger, read_sweep
from tune.results.rows import TrialRow

__all__ = ["EXPORTED", "check_export", "choose", "exported_config", "reveal_test", "trained_chain"]

EXPORTED = "# Trial "
"""How an exported configuration begins."""


def choose(state: SweepState, rows: Sequence[TrialRow], number: int | None) -> int:
    """The trial to export or reveal.

    Args:
        state: the sweep's.
        rows: the best ones, from `best`.
        number: the trial that the user named; None for the best one.

    Raises:
        SweepError: it is none of the rows, or there are several objectives and none is named.
    """
    numbers = [row.trial for row in rows]
    shown = and_more(map(str, sorted(numbers)), 10)
    if number is None and len(state.objectives) > 1 and len(rows) > 1:
        raise SweepError(
            f"--trial: no trial of the Pareto front is better than the others; name one: {shown}"
        )
    if number is not None and number not in numbers:
        raise SweepError(f"--trial {number}: not among the best; name one of {shown}")
    return numbers[0] if number is None else number


def trained_chain(
    state: SweepState, number: int, store: Store, warn: Callable[[str], None]
) -> Predictor:
    """A completed trial's chain, from the artifacts that the ledger names; `warn` is as for
    `Predictor`.

    Raises:
        DataError: an artifact is not there.
    """
    trial = state.trials[number]
    keys = {stage: record.key for stage, record in trial.stages.items()}
    return Predictor(trial.candidate.config(state.sweep.base), store, keys, warn)


def exported_config(state: SweepState, number: int) -> str:
    """A trial's configuration as YAML for `magtkd train`, led by where it came from. What
    population based training changed is in `fusion.changes`."""
    trial = state.trials[number]
    accuracy, weighted_f1 = (
        (trial.dev.accuracy, trial.dev.weighted_f1) if trial.dev else (None, None)
    )
    pairs = zip(state.objectives, trial.objectives or [], strict=False)
    ranked_by = ", ".join(f"{one.mode} {one.metric} {value}" for one, value in pairs)
    lines = [
        f"{EXPORTED}{number} of sweep {state.name}, {trial.state}; dev chose epoch {trial.epoch}.",
        f"# Objective: {ranked_by or 'not reached'}.",
        f"# There dev accuracy is {accuracy}, dev weighted F1 {weighted_f1},",
        f"# with {', '.join(f'{name} {version}' for name, version in state.versions.items())}.",
    ]
    return "\n".join(lines) + "\n" + dump_yaml(trial.candidate.config(state.sweep.base))


def check_export(path: Path) -> None:
    """Refuse to replace a file that is not an exported configuration.

    Raises:
        SweepError: it is another file.
    """
    if not path.is_file():
        return
    with path.open("rb") as file:
        if file.read(len(EXPORTED)) != EXPORTED.encode():
            raise SweepError(
                f"--export {path}: exists, and `magtkd best` did not write it; name another file"
            )


def reveal_test(layout: SweepLayout, number: int, store: Store) -> Scores:
    """Compute the test metrics of one trial from its artifact, and record in the ledger that they
    were seen. A trial whose test was revealed before gives the same again.

    Args:
        layout: where the sweep is.
        number: the selected trial.
        store: where its artifacts are.

    Raises:
        SweepError: the sweep is running, or the table has no test split.
        ArtifactError: the trial's artifact is missing or damaged.
    """
    state = read_sweep(layout)
    trial = state.trials[number]
    if trial.test is not None:
        return trial.test
    data = store.read("data", trial.stages["data"].key).table
    fusion = store.read("fusion", trial.stages["fusion"].key, weights=False).table
    try:
        test = score_split(data, fusion, "test")
    except DataError as error:
        raise SweepError(f"sweep {state.name!r}: {error}") from None
    with open_ledger(layout, resume=True) as ledger:
        ledger.append(TestRevealed(trial=number, test=test))
    return test
