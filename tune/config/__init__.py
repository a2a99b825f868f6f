"""The configuration of a sweep: its sections, how they are read and checked, how it is run, and
what may change once it was begun."""

from tune.config.changes import changed_sweep, differences, may_change, with_changes
from tune.config.options import SweepOptions
from tune.config.sweep import Search, SweepConfig, check_new_sweep, check_sweep, load_sweep

__all__ = [
    "Search",
    "SweepConfig",
    "SweepOptions",
    "changed_sweep",
    "check_new_sweep",
    "check_sweep",
    "differences",
    "load_sweep",
    "may_change",
    "with_changes",
]
