"""MLflow as a projection of the ledger. MLflow itself is imported where a store is opened."""

from tune.tracking.address import check_address, is_database, sqlite_file
from tune.tracking.attach import attach
from tune.tracking.dashboard import dashboard_lines
from tune.tracking.notes import sweep_headline
from tune.tracking.refusals import in_our_words
from tune.tracking.runs import remove_runs
from tune.tracking.schema import check_schema
from tune.tracking.tracker import Tracker, check_store, num_behind, sync

__all__ = [
    "Tracker",
    "attach",
    "check_address",
    "check_schema",
    "check_store",
    "dashboard_lines",
    "in_our_words",
    "is_database",
    "num_behind",
    "remove_runs",
    "sqlite_file",
    "sweep_headline",
    "sync",
]
