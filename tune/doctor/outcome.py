"""What a check finds."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Found", "Outcome"]


class Outcome(StrEnum):
    """Whether something is as it should be."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


Found = tuple[Outcome, str]
"""An outcome, and one line; that of a warning or a problem ends with a way out."""
