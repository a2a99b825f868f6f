"""Training: the one loop, and what a stage adds to it.

task.py          what a stage adds: a model, batches, a loss and outputs
loop.py          the session: epochs, steps, learning rate, the chosen weights
evaluation.py    outputs of a split or of the whole table, metrics on dev
checkpoint.py    a session as bytes, and back
random_state.py  a seed for each epoch, and the global random state
"""

from magtkd.metrics import Report
from magtkd.training.evaluation import dev_metrics, predict, predict_table
from magtkd.training.loop import ReportCallback, Session, TrainResult
from magtkd.training.random_state import derive_seed
from magtkd.training.task import Outputs, Task

__all__ = [
    "Outputs",
    "Report",
    "ReportCallback",
    "Session",
    "Task",
    "TrainResult",
    "derive_seed",
    "dev_metrics",
    "predict",
    "predict_table",
]
