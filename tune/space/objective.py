"""The objective: a metric of dev, and in which direction it is better."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from magtkd.config import Section, nearest

__all__ = ["METRICS", "Mode", "Objective"]

METRICS = ("dev/accuracy", "dev/loss", "dev/weighted_f1")
"""Metrics that every trial reports, beside `dev/f1/<label>`."""

Mode = Literal["min", "max"]


class Objective(Section):
    """A metric to optimise."""

    metric: str = "dev/weighted_f1"
    """`dev/accuracy`, `dev/loss`, `dev/weighted_f1`, or `dev/f1/<label>`."""
    mode: Mode = "max"
    """Whether to minimise or maximise."""

    @field_validator("metric")
    @classmethod
    def _known(cls, metric: str) -> str:
        label = metric.removeprefix("dev/f1/")
        if metric in METRICS or (label != metric and label):
            return metric
        if metric.startswith("test/"):
            raise ValueError(
                f"{metric!r}: test metrics stay sealed while a sweep chooses; use "
                f"{metric.replace('test/', 'dev/', 1)!r}"
            )
        known = (*METRICS, "dev/f1/<label>")
        hint = nearest(metric, known) or f"; known are {', '.join(known)}"
        raise ValueError(f"{metric!r}: no such metric{hint}")

    @property
    def sign(self) -> int:
        """1 where more is better, -1 where less is: signed values compare as `max`."""
        return 1 if self.mode == "max" else -1
