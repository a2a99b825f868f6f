"""The search at work: the Optuna study, or what takes its place where a sweep is confirmed; what
Ray Tune asks of it; and the scheduler's past."""

from tune.search.frozen import frozen_study, write_study
from tune.search.race import Race
from tune.search.replay import replay
from tune.search.searcher import Proposer, SweepSearcher
from tune.search.study import OPTUNA_STATES, SweepStudy
from tune.search.trainings import Trainings, fresh_seeds

__all__ = [
    "OPTUNA_STATES",
    "Proposer",
    "Race",
    "SweepSearcher",
    "SweepStudy",
    "Trainings",
    "fresh_seeds",
    "frozen_study",
    "replay",
    "write_study",
]
