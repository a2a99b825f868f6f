"""The trial: what runs for each candidate, in a small process of Ray Tune's.

Imports little, since there is such a process for each trial at a time.
"""

from tune.trial.trial import Trial, TrialResult

__all__ = ["Trial", "TrialResult"]
