"""A sweep's trials as an Optuna study to look at.

`SweepStudy` asks its sampler again for each trial, since it is continued; here trials are only
added, so that thousands take a moment.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime

import optuna
from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from magtkd.errors import SweepError, first_line
from tune.ledger import SweepState, TrialState
from tune.search.joint import distributions
from tune.search.study import final_state
from tune.space import Values

__all__ = ["frozen_study", "write_study"]


def frozen_study(state: SweepState) -> optuna.Study:
    """The study, in memory, with trials in order of number. A trial with values outside the space
    (see `search.start`) is a failed one without values, as Optuna has no place for them.

    Args:
        state: the sweep's.
    """
    directions = [
        StudyDirection.MAXIMIZE if one.mode == "max" else StudyDirection.MINIMIZE
        for one in state.objectives
    ]
    study = optuna.create_study(study_name=state.name, directions=directions)
    space = state.sweep.search_space
    known = distributions(space)
    metric = state.objectives[0].metric if len(state.objectives) == 1 else None
    for _, trial in sorted(state.trials.items()):
        values = space.own_values(trial.values) if space.has(trial.values) else None
        study.add_trial(_frozen(trial, values, known, metric))
    return study


def write_study(state: SweepState, url: str) -> int:
    """Write the study into a database of Optuna's, for optuna-dashboard; how many trials it has.

    Args:
        state: the sweep's.
        url: such as `sqlite:///study.db`.

    Raises:
        SweepError: the database has a study of this name, or cannot be written.
    """
    study = frozen_study(state)
    try:
        storage = optuna.storages.get_storage(url)
        copied = optuna.create_study(
            study_name=state.name, storage=storage, directions=study.directions
        )
        copied.add_trials(study.trials)
    except optuna.exceptions.DuplicatedStudyError:
        raise SweepError(
            f"--out {url}: has a study {state.name!r} already; name another database"
        ) from None
    except Exception as error:
        raise SweepError(f"--out {url}: {first_line(error)}; write sqlite:///FILE") from None
    return len(study.trials)


def _frozen(
    trial: TrialState,
    values: Values | None,
    known: Mapping[str, BaseDistribution],
    metric: str | None,
) -> FrozenTrial:
    final = final_state(trial.state, trial.objectives)
    if values is None and final == OptunaState.COMPLETE:
        final = OptunaState.FAIL
    is_whole = final == OptunaState.COMPLETE
    ended = trial.ended_time
    return FrozenTrial(
        number=trial.number,
        trial_id=trial.number,
        state=final,
        value=None,
        values=[one for one in trial.objectives or () if one is not None] if is_whole else None,
        datetime_start=datetime.fromtimestamp(trial.suggested_time / 1000),
        datetime_complete=None if ended is None else datetime.fromtimestamp(ended / 1000),
        params=values or {},
        distributions={name: known[name] for name in values or ()},
        user_attrs={},
        system_attrs={},
        intermediate_values=_reported(trial, metric) if trial.has_ended else {},
    )


def _reported(trial: TrialState, metric: str | None) -> dict[int, float]:
    if metric is None:
        return {}
    found = ((report.epoch, report.metrics.get(metric)) for report in trial.reports)
    return {epoch: one for epoch, one in found if one is not None and math.isfinite(one)}
