"""What came out of a sweep: its status, its trials as rows, the best of them, and what it cost."""

from tune.results.costs import DeviceCost, StageCost, device_cost, sweep_cost
from tune.results.display import Display, duration, short_value
from tune.results.formats import FORMATS, metric_header, table_columns, write_trials
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
    "duration",
    "exported_config",
    "files_of",
    "metric_header",
    "mlflow_status",
    "print_status",
    "reveal_test",
    "short_value",
    "sweep_cost",
    "sweep_status",
    "table_columns",
    "trial_rows",
    "write_trials",
]
