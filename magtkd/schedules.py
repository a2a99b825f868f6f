"""Schedules of the learning rate. Another one is a class here, and its line in `SCHEDULES`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from magtkd.reading import Reads, always

__all__ = ["SCHEDULES", "Schedule"]


class Schedule(ABC):
    """The learning rate over the steps, as a share of its peak."""

    name: ClassVar[str]
    reads: ClassVar[Reads] = {}
    """The fields that it reads, beside those that all schedules may read."""

    @abstractmethod
    def factor(self, *, step: int, num_steps: int, num_items: int, section: Any) -> float:
        """The learning rate at a step as a share of its peak.

        Args:
            step: from 0.
            num_steps: steps of all epochs.
            num_items: conversations of one pass over train; utterances, where they are batched.
            section: the stage's section in this epoch.
        """


class Constant(Schedule):
    """The peak, always."""

    name = "constant"

    def factor(self, *, step: int, num_steps: int, num_items: int, section: Any) -> float:
        return 1.0


class Linear(Schedule):
    """Linear warm-up from above 0, then linear decay to 0."""

    name = "linear"
    reads: ClassVar[Reads] = {"warmup": always}

    def factor(self, *, step: int, num_steps: int, num_items: int, section: Any) -> float:
        return _ramps(step + 1, step, round(section.warmup * num_steps), num_steps)


class Published(Schedule):
    """The published code's arithmetic: warm-up lasts as many *batches* as train has conversations,
    and decay runs to as many batches as there are conversations in all epochs."""

    name = "published"

    def factor(self, *, step: int, num_steps: int, num_items: int, section: Any) -> float:
        return _ramps(step, step, num_items, num_items * section.epochs)


def _ramps(warm_step: int, step: int, warm_steps: int, last: int) -> float:
    """Up to 1 within the warm steps, whose count begins at `warm_step`, then down to 0 at the
    last."""
    if step < warm_steps:
        return warm_step / max(1.0, warm_steps)
    return max(0.0, (last - step) / max(1.0, last - warm_steps))


SCHEDULES = {schedule.name: schedule for schedule in (Constant(), Linear(), Published())}
"""All schedules by name."""
