"""A new scheduler, brought to where an earlier driver's was."""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import TrialScheduler

from tune.ledger import EpochReported, Event, TrialEnded, TrialEvent, TrialSuggested
from tune.schedulers.on_ray import Resumable
from tune.space import Assignment

__all__ = ["replay"]


def replay(scheduler: Any, events: Iterable[Event]) -> list[int]:
    """Give a new scheduler the reports that an earlier driver's received, in their order.

    Population based training and HyperBand start again from the trials that have not ended.

    Returns:
        trials whose last report ended them, though the ledger does not have their end: the driver
        was killed in between.
    """
    if not isinstance(scheduler, Resumable):
        return []
    running: dict[int, str] = {}
    for event in events:
        if not isinstance(event, TrialEvent):
            continue
        trial = SimpleNamespace(config={Assignment.NUMBER: event.trial})
        match event:
            case TrialSuggested():
                scheduler.on_trial_add(None, trial)
                running[event.trial] = TrialScheduler.CONTINUE
            case EpochReported() if event.trial in running:
                result = {**event.metrics, "epoch": event.epoch}
                decision = scheduler.on_trial_result(None, trial, result)
                if decision == TrialScheduler.STOP:
                    running[event.trial] = decision
            case TrialEnded():
                running.pop(event.trial, None)
    return [number for number, last in running.items() if last == TrialScheduler.STOP]
