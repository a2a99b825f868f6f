"""Checks of a machine before a sweep."""

from tune.doctor.checks import Check, run_checks
from tune.doctor.outcome import Outcome

__all__ = ["Check", "Outcome", "run_checks"]
