"""What all schedulers have in common: a section of the sweep's configuration, a check against the
search problem, and how Ray Tune's scheduler is built."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

from pydantic import Field

from magtkd.config import Section
from magtkd.errors import SweepError
from tune.space import Problem

__all__ = ["Positive", "SchedulerSection", "check_concurrent", "check_grace", "ray_options"]

Positive = Annotated[int, Field(ge=1, lt=2**31)]


class SchedulerSection(Section):
    """The section of one scheduler, which `kind` names."""

    needs_num_trials: ClassVar[str] = ""
    """What it takes from the number of trials; see `Sampler.needs_num_trials`."""

    kind: str
    """Which scheduler it is."""

    def check(self, problem: Problem) -> None:
        """Check that it can schedule this problem.

        Raises:
            SweepError: one line with the place, the value and the way out.
        """
        if len(problem.objectives) > 1:
            raise SweepError(
                f"scheduler.kind: {self.kind} stops trials by one objective, and there are "
                f"{len(problem.objectives)}; use fifo, or keep one objective"
            )

    def build(self, problem: Problem) -> Any:
        """Ray Tune's scheduler. Metric and mode are its own: a `TuneConfig` beside it must not name
        them again."""
        raise NotImplementedError

    def decides_after(self, problem: Problem) -> Sequence[int]:
        """The epochs after which it may stop or pause a trial whose metrics are finite, ascending.

        A trial may report the epochs up to the next of these at once. After every epoch, unless a
        scheduler says otherwise.
        """
        return range(1, problem.max_epochs + 1)

    @property
    def stops_trials(self) -> bool:
        """Whether it ends trials before their last epoch."""
        return True

    @property
    def shares_sessions(self) -> bool:
        """Whether a trial may continue from another trial's session."""
        return False


def ray_options(problem: Problem) -> dict[str, Any]:
    """What Ray's schedulers that compare trials all take."""
    first = problem.objectives[0]
    return {"time_attr": "epoch", "metric": first.metric, "mode": first.mode}


def check_grace(grace_period: int, problem: Problem) -> None:
    """Check that the grace period ends before the trials do."""
    if grace_period > problem.max_epochs:
        raise SweepError(
            f"scheduler.grace_period: {grace_period} is more than the {problem.max_epochs} epochs "
            "of fusion; lower it, or raise fusion.epochs"
        )


def check_concurrent(kind: str, problem: Problem, needed: int) -> None:
    """Check that trials that wait for each other are live together."""
    if problem.max_concurrent < needed:
        raise SweepError(
            f"search.max_concurrent: {problem.max_concurrent} is too few for scheduler {kind}, "
            f"which compares trials that wait for each other; set it to {needed} (trials hold no "
            "accelerator), or use asha"
        )
