"""The configuration of a sweep: its sections, how they are read and checked, how it is run, and
what may change once it was begun."""

from tune.config.changes import changed_sweep, differences, may_change, with_changes
from tune.config.options import SweepOptions
from tune.config.sweep import Search, SweepConfig, check_new_sweep, check_sweep, load_sweep
from tune.config.table import BASELINES, TableRow, TableSpec, baseline_values, load_table

__all__ = [
    "BASELINES",
    "Search",
    "SweepConfig",
    "SweepOptions",
    "TableRow",
    "TableSpec",
    "baseline_values",
    "changed_sweep",
    "check_new_sweep",
    "check_sweep",
    "differences",
    "load_sweep",
    "load_table",
    "may_change",
    "with_changes",
]
