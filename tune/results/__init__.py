"""What came out of a sweep: its status, its trials as rows, the best of them, and what it cost."""

from tune.results.costs import DeviceCost, StageCost, device_cost, sweep_cost
from tune.results.display import Display
from tune.results.formats import FORMATS, write_trials
from tune.results.rows import TrialRow, best, trial_rows
from tune.results.selection import check_export, choose, exported_config, reveal_test
from tune.results.stage_seconds import TRAINED, Seconds, StageSeconds
from tune.results.status import Status, mlflow_status, sweep_status
from tune.results.status_text import print_status
from tune.results.trial_files import files_of

__all__ = [
    "FORMATS",
    "TRAINED",
    "DeviceCost",
    "Display",
    "Seconds",
    "StageCost",
    "StageSeconds",
    "Status",
    "TrialRow",
    "best",
    "check_export",
    "choose",
    "device_cost",
    "exported_config",
    "files_of",
    "mlflow_status",
    "print_status",
    "reveal_test",
    "sweep_cost",
    "sweep_status",
    "trial_rows",
    "write_trials",
]
