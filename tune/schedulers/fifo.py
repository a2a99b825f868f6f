"""`fifo`: no trial is stopped early."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from tune.schedulers.base import SchedulerSection
from tune.space import Problem

__all__ = ["Fifo"]


class Fifo(SchedulerSection):
    """Every trial runs to its end."""

    kind: Literal["fifo"] = "fifo"
    """Which scheduler it is."""

    def check(self, problem: Problem) -> None:
        """Nothing: it takes any problem."""

    def decides_after(self, problem: Problem) -> Sequence[int]:
        return ()

    def build(self, problem: Problem) -> Any:
        import ray.tune.schedulers as ray_schedulers

        return ray_schedulers.FIFOScheduler()

    @property
    def stops_trials(self) -> bool:
        return False
