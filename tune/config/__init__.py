"""The configuration of a sweep: its sections, how they are read and checked, and how it is run."""

from tune.config.options import SweepOptions
from tune.config.sweep import Search, SweepConfig, check_sweep, load_sweep

__all__ = ["Search", "SweepConfig", "SweepOptions", "check_sweep", "load_sweep"]
