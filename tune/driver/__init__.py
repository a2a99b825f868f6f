"""The driver of a sweep: Ray Tune's loop between the ledger, the search and the engine."""

from tune.driver.confirm import ConfirmRequest, confirm_sweep
from tune.driver.housekeeping import end_driver, remove_sweep, remove_unused, unused_artifacts
from tune.driver.preview import Preview, preview_sweep
from tune.driver.preview_text import preview_lines
from tune.driver.sweep import is_to_resume, resume_sweep, run_sweep
from tune.driver.table import build_table

__all__ = [
    "ConfirmRequest",
    "Preview",
    "build_table",
    "confirm_sweep",
    "end_driver",
    "is_to_resume",
    "preview_lines",
    "preview_sweep",
    "remove_sweep",
    "remove_unused",
    "resume_sweep",
    "run_sweep",
    "unused_artifacts",
]
