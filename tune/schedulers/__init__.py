"""Schedulers stop trials early: one file each, and `fifo` stops none.

To add one, write a file beside these with a `SchedulerSection` and name it in `AnyScheduler`.
Importing this package imports no Ray; building a scheduler does.
"""

from typing import Annotated, get_args

from pydantic import Field

from tune.schedulers.asha import Asha
from tune.schedulers.base import SchedulerSection
from tune.schedulers.fifo import Fifo
from tune.schedulers.hyperband import HyperBand
from tune.schedulers.median import Median
from tune.schedulers.pbt import PopulationBased

__all__ = [
    "SCHEDULERS",
    "Asha",
    "Fifo",
    "HyperBand",
    "Median",
    "PopulationBased",
    "Scheduler",
    "SchedulerSection",
]

AnyScheduler = Fifo | Asha | HyperBand | Median | PopulationBased
Scheduler = Annotated[AnyScheduler, Field(discriminator="kind")]
"""The section `scheduler`, by its `kind`."""

SCHEDULERS: dict[str, type[SchedulerSection]] = {
    section.model_fields["kind"].default: section for section in get_args(AnyScheduler)
}
"""The sections by their `kind`."""
