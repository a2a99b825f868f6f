"""The rows of `gpu.py`'s table, and what makes one of them a failure. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = [
    "FAILED",
    "OK",
    "Row",
    "close",
    "exit_code",
    "falling",
    "row",
    "skipped",
    "table",
    "worst",
]

OK, FAILED = "ok", "FAILED"
HEADINGS = ("check", "case", "expected", "measured", "")


@dataclass(frozen=True)
class Row:
    """One line: what was tried, what should come out, what did; `outcome` is ok, FAILED, or
    `skipped: why`."""

    check: str
    case: str
    expected: str
    measured: str
    outcome: str


def row(check: str, case: str, expected: str, measured: str, is_right: bool) -> Row:
    """A row that is ok or FAILED."""
    return Row(check, case, expected, measured, OK if is_right else FAILED)


def skipped(check: str, case: str, why: str) -> Row:
    """A row of what could not be tried here."""
    return Row(check, case, "", "", f"skipped: {why}")


def worst(measured: Sequence[float], expected: Sequence[float]) -> float:
    """The largest relative difference; infinite where one is not finite or a number is missing."""
    if len(measured) != len(expected) or not expected:
        return math.inf
    if not all(map(math.isfinite, (*measured, *expected))):
        return math.inf
    pairs = zip(measured, expected, strict=True)
    return max(abs(one - other) / max(abs(other), 1e-6) for one, other in pairs)


def close(measured: Sequence[float], expected: Sequence[float], tolerance: float) -> bool:
    """Whether all numbers are finite and agree within a relative tolerance."""
    return worst(measured, expected) <= tolerance


def falling(losses: Sequence[float]) -> bool:
    """Whether losses are finite and the last is lower than the first."""
    return len(losses) > 1 and all(map(math.isfinite, losses)) and losses[-1] < losses[0]


def exit_code(rows: Iterable[Row]) -> int:
    """1 where anything failed, or nothing was tried."""
    outcomes = [one.outcome for one in rows]
    return int(FAILED in outcomes or OK not in outcomes)


def table(rows: Iterable[Row]) -> str:
    """The rows in columns of equal width."""
    lines = [HEADINGS, *((r.check, r.case, r.expected, r.measured, r.outcome) for r in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
