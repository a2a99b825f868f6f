"""The objective: a metric of dev, and in which direction it is better."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from magtkd.config import DEV_METRICS, Section, label_of, nearest
from magtkd.errors import SweepError, shorten

__all__ = ["METRICS", "Mode", "Objective"]

METRICS = tuple(f"dev/{name}" for name in DEV_METRICS)
"""Metrics that every trial reports, beside `dev/f1/<label>`."""

OF_A_LABEL = "dev/f1/"

Mode = Literal["min", "max"]


def _without_default(schema: dict[str, Any]) -> None:
    del schema["default"]  # it depends on the metric


class Objective(Section):
    """A metric to optimise."""

    metric: str = "dev/weighted_f1"
    """`dev/accuracy`, `dev/loss`, `dev/macro_f1`, `dev/weighted_f1`, or `dev/f1/<label>`."""
    mode: Mode = Field(default="max", json_schema_extra=_without_default)
    """Whether to minimise or maximise; by default what is better: `min` for `dev/loss`, `max` for
    the others."""

    @model_validator(mode="before")
    @classmethod
    def _direction(cls, tree: Any) -> Any:
        if not isinstance(tree, Mapping) or "mode" in tree:
            return tree
        return {**tree, "mode": _better(str(tree.get("metric")))}

    @field_validator("metric")
    @classmethod
    def _known(cls, metric: str) -> str:
        if metric in METRICS or (metric.startswith(OF_A_LABEL) and metric != OF_A_LABEL):
            return metric
        if metric.startswith("test/"):
            raise ValueError(
                f"{shorten(metric)!r}: test metrics stay sealed while a sweep chooses; use "
                f"{shorten(metric.replace('test/', 'dev/', 1))!r}"
            )
        known = (*METRICS, "dev/f1/<label>")
        hint = f"{nearest(metric, known)}; known are {', '.join(known)}"
        raise ValueError(f"{shorten(metric)!r}: no such metric{hint}")

    @property
    def label(self) -> str | None:
        """The label whose F1 it is, if it is one's."""
        return label_of(self.select)

    @property
    def select(self) -> str:
        """The same as a stage's `select`, which chooses the epoch."""
        return self.metric.removeprefix("dev/")

    def check(self) -> None:
        """Check the direction. Ledgers have had others, and are read with them.

        Raises:
            SweepError: the sweep would search for the worst value.
        """
        better = _better(self.metric)
        if self.mode != better:
            worse = "higher" if better == "min" else "lower"
            raise SweepError(
                f"objective.mode: {self.mode}: {self.metric} is worse where it is {worse}; "
                f"write mode: {better}, or leave it out"
            )

    @property
    def sign(self) -> int:
        """1 where more is better, -1 where less is: signed values compare as `max`."""
        return 1 if self.mode == "max" else -1


def _better(metric: str) -> Mode:
    return "min" if metric == "dev/loss" else "max"
