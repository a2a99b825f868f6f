"""The search at work: the Optuna study, what Ray Tune asks of it, and the scheduler's past."""

from tune.search.frozen import frozen_study
from tune.search.replay import replay
from tune.search.searcher import OptunaSearcher
from tune.search.study import OPTUNA_STATES, SweepStudy

__all__ = ["OPTUNA_STATES", "OptunaSearcher", "SweepStudy", "frozen_study", "replay"]
