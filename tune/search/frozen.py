"""A sweep's trials as an Optuna study to look at.

`SweepStudy` asks its sampler again for each trial, since it is continued; here trials are only
added, so that thousands take a moment.
"""

from __future__ import annotations

from datetime import datetime

import optuna
from optuna.study import StudyDirection
from optuna.trial import TrialState as OptunaState

from tune.ledger import SweepState, TrialState
from tune.search.study import final_state

__all__ = ["frozen_study"]


def frozen_study(state: SweepState) -> optuna.Study:
    """The study, in memory, with trials in order of number. A trial with values outside the space
    (see `search.start`) is a failed one, as Optuna has no place for it.

    Args:
        state: the sweep's.
    """
    study = optuna.create_study(
        study_name=state.name,
        directions=[
            StudyDirection.MAXIMIZE if one.mode == "max" else StudyDirection.MINIMIZE
            for one in state.objectives
        ],
    )
    space = state.sweep.search_space
    distributions: dict[str, optuna.distributions.BaseDistribution] = {}
    for name, entry in space.entries:
        asked = optuna.trial.FixedTrial({name: entry.probes()[0]})
        entry.suggest(asked, name)
        distributions |= asked.distributions
    for _, trial in sorted(state.trials.items()):
        params = space.own_values(trial.values) if space.has(trial.values) else None
        study.add_trial(_frozen(trial, params, distributions))
    return study


def _frozen(
    trial: TrialState,
    params: dict[str, str | int | float | bool | None] | None,
    distributions: dict[str, optuna.distributions.BaseDistribution],
) -> optuna.trial.FrozenTrial:
    final = final_state(trial.state, trial.objectives)
    if params is None and final == OptunaState.COMPLETE:
        final = OptunaState.FAIL
    values = [value for value in trial.objectives or () if value is not None]
    return optuna.trial.FrozenTrial(
        number=trial.number,
        trial_id=trial.number,
        state=final,
        value=None,
        values=values if final == OptunaState.COMPLETE else None,
        datetime_start=datetime.fromtimestamp(trial.suggested_time / 1000),
        datetime_complete=None
        if trial.ended_time is None
        else datetime.fromtimestamp(trial.ended_time / 1000),
        params=params or {},
        distributions={name: distributions[name] for name in params or {}},
        user_attrs={},
        system_attrs={},
        intermediate_values={},
    )
