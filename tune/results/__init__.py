"""What came out of a sweep: its status, its trials as rows, the best of them, and what it cost."""

from tune.results.confirmation import (
    Confirmation,
    ConfirmedRow,
    Verdict,
    best_lines,
    confirmation_json,
    confirmation_lines,
    confirmed_config,
    confirmed_rows,
    find_confirmation,
    print_confirmation,
    reveal_confirmed,
)
from tune.results.costs import DeviceCost, StageCost, device_cost, sweep_cost
from tune.results.display import Display, duration, short_value
from tune.results.formats import (
    FORMATS,
    metric_header,
    print_table,
    table_columns,
    write_trials,
)
from tune.results.listing import SweepLine, list_sweeps, names_in, print_sweeps
from tune.results.rows import TrialRow, best, trial_rows
from tune.results.selection import (
    check_export,
    choose,
    exported_config,
    reveal_test,
    trained_chain,
)
from tune.results.stage_seconds import TRAINED, Seconds, StageSeconds
from tune.results.status import Status, driver_of, mlflow_status, read_status, sweep_status
from tune.results.status_text import print_status
from tune.results.table import PaperTable, Trained, make_paper_table
from tune.results.table_text import TABLE_FORMATS, footnotes
from tune.results.trial_files import files_of

__all__ = [
    "FORMATS",
    "TABLE_FORMATS",
    "TRAINED",
    "Confirmation",
    "ConfirmedRow",
    "DeviceCost",
    "Display",
    "PaperTable",
    "Seconds",
    "StageCost",
    "StageSeconds",
    "Status",
    "SweepLine",
    "Trained",
    "TrialRow",
    "Verdict",
    "best",
    "best_lines",
    "check_export",
    "choose",
    "confirmation_json",
    "confirmation_lines",
    "confirmed_config",
    "confirmed_rows",
    "device_cost",
    "driver_of",
    "duration",
    "exported_config",
    "files_of",
    "find_confirmation",
    "footnotes",
    "list_sweeps",
    "make_paper_table",
    "metric_header",
    "mlflow_status",
    "names_in",
    "print_confirmation",
    "print_status",
    "print_sweeps",
    "print_table",
    "read_status",
    "reveal_confirmed",
    "reveal_test",
    "short_value",
    "sweep_cost",
    "sweep_status",
    "table_columns",
    "trained_chain",
    "trial_rows",
    "write_trials",
]
