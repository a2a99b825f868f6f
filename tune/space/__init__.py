"""What is searched: names of the configuration, the values they may take, the objectives, and the
candidates among them.

Imports neither Ray nor Optuna, so that a light process can read a sweep.
"""

from tune.space.candidate import Assignment, Candidate
from tune.space.objective import METRICS, Mode, Objective
from tune.space.parse import parse_entry
from tune.space.problem import Problem
from tune.space.ranges import (
    Choice,
    Entry,
    FloatRange,
    IntRange,
    Prior,
    Scalar,
    Suggester,
    value_name,
)
from tune.space.space import Space, Values, base_value, check_values

__all__ = [
    "METRICS",
    "Assignment",
    "Candidate",
    "Choice",
    "Entry",
    "FloatRange",
    "IntRange",
    "Mode",
    "Objective",
    "Prior",
    "Problem",
    "Scalar",
    "Space",
    "Suggester",
    "Values",
    "base_value",
    "check_values",
    "parse_entry",
    "value_name",
]
