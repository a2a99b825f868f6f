"""Trials of earlier sweeps, from which a new one starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from magtkd.config import Config, get_value
from magtkd.errors import InputError, SweepError
from tune.config import SweepConfig
from tune.ledger import (
    Event,
    SweepLayout,
    SweepState,
    TrialsLearned,
    TrialState,
    TrialStatus,
    read_sweep,
)
from tune.samplers import EarlierTrial
from tune.space import Candidate, Values, base_value

__all__ = ["learn_from", "lines_on"]

MOST_TRIALS = 1000
"""Of each sweep, the latest ones."""
LEARNED = {TrialStatus.COMPLETED, TrialStatus.STOPPED}
FOLDER = "/sweeps/"


def learn_from(
    sweep: SweepConfig, layout: SweepLayout, fingerprint: str, events: Sequence[Event] = ()
) -> list[TrialsLearned]:
    """What a sweep learns from the sweeps that `search.learn_from` names, before its first trial.

    Args:
        sweep: the sweep, which was checked.
        layout: where it is.
        fingerprint: of its table.
        events: of its ledger; what it has learned already is not read again.

    Raises:
        SweepError: one of them is not there, or cannot be read.
        StorageLostError: an object store does not answer or refuses.
    """
    known = {event.source for event in events if isinstance(event, TrialsLearned)}
    return [
        _learned(sweep, name, _state_of(name, layout), fingerprint)
        for name in sweep.search.learn_from
        if name not in known
    ]


def lines_on(learned: Sequence[TrialsLearned]) -> list[str]:
    """A line for people on each of them."""
    kinds = {
        True: "of the same table and settings, so that their scores count",
        False: "of another table or with other settings, so that their order counts",
    }
    return [
        f"search.learn_from: {one.source}: {len(one.trials)} trials have values of this space, "
        f"{kinds[one.is_same]}"
        if one.trials
        else f"search.learn_from: {one.source}: no trial has values of this space; it has no effect"
        for one in learned
    ]


def _state_of(name: str, layout: SweepLayout) -> SweepState:
    storage, folder, own = name.rpartition(FOLDER)
    try:
        if folder:
            other = SweepLayout.of(storage, own.rstrip("/"))
        else:
            other = SweepLayout(layout.root, SweepLayout.of("", name).name, layout.remote)
        if other == layout:
            raise SweepError(f"sweep {name!r}: is this one; name an earlier sweep")
        return read_sweep(other)
    except SweepError as error:
        raise SweepError(f"search.learn_from: {error}") from None


def _learned(sweep: SweepConfig, name: str, state: SweepState, fingerprint: str) -> TrialsLearned:
    metric = sweep.objective[0].metric
    trials, is_same = [], state.fingerprint == fingerprint
    for trial in state.ended:
        curve = {
            report.epoch: value
            for report in trial.reports
            if report.epoch > 0 and (value := report.metrics.get(metric)) is not None
        }
        found = _found(sweep, state.sweep.base, trial)
        if found is None or not curve:
            continue
        values, is_whole = found
        trials.append(EarlierTrial(values, curve))
        is_same = is_same and is_whole
    return TrialsLearned(source=name, is_same=is_same, trials=trials[-MOST_TRIALS:])


def _found(sweep: SweepConfig, base: Config, trial: TrialState) -> tuple[Values, bool] | None:
    """A trial's values in a sweep's space, and whether it agrees in all else that a result depends
    on; None where it has values that the space does not have.

    Args:
        sweep: the sweep that learns.
        base: the configuration around which the trial's sweep searched.
        trial: an ended trial of it.
    """
    if trial.state not in LEARNED or trial.changes:
        return None
    space = sweep.search_space
    try:
        theirs = trial.candidate.config(base)
        own = {name: base_value(theirs, name) for name, _ in space.entries}
        values = space.as_written(space.complete(own, sweep.base), sweep.base)
        ours = Candidate(values=values).config(sweep.base)
    except InputError:
        return None
    # A value that two trials of this sweep always share may differ in another sweep's.
    has_all = all(get_value(ours, name) == get_value(theirs, name) for name in values)
    if not has_all or not space.has(values):
        return None
    return values, _settings(ours) == _settings(theirs)


def _settings(config: Config) -> dict[str, Any]:
    """What a result depends on, apart from the table itself and from chance."""
    return config.model_dump(
        mode="json", exclude={"name": True, "seed": True, "resources": True, "data": {"path"}}
    )
