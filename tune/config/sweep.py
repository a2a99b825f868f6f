"""The configuration of a sweep: a configuration, and what is searched how around it.

Imports neither Ray nor Optuna. `load_sweep` checks everything that can be wrong before a sweep
starts, apart from what needs the data (labels) or the cluster (resources).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from magtkd.config import Config, FusionConfig, Section, load_config, nearest, with_values
from magtkd.errors import SweepError
from tune.config.space import FloatRange, IntRange, Space

__all__ = [
    "METRICS",
    "Objective",
    "Scheduler",
    "Search",
    "SweepConfig",
    "base_of",
    "bracket_sizes",
    "check_sweep",
    "config_of",
    "load_sweep",
    "max_epochs",
]

METRICS = ("dev/accuracy", "dev/loss", "dev/weighted_f1")
"""Metrics that every trial reports, beside `dev/f1/<label>`."""

Positive = Annotated[int, Field(ge=1)]


class Objective(Section):
    """A metric that is to become large or small."""

    metric: str = "dev/weighted_f1"
    """`dev/accuracy`, `dev/loss`, `dev/weighted_f1`, or `dev/f1/<label>`."""
    mode: Literal["min", "max"] = "max"
    """Whether small or large values are good."""

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


class Search(Section):
    """Which values are tried. `gp`, `cmaes` and `nsga2` learn from completed trials only."""

    sampler: Literal["random", "grid", "qmc", "tpe", "gp", "cmaes", "nsga2"] = "tpe"
    """How the next trial's values are chosen."""
    num_trials: Positive = 20
    """Trials in all; a grid ends before that after its last point."""
    max_concurrent: Positive = 2
    """Trials that are live at the same time."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of the sampler and the scheduler, apart from the training seed."""


class Scheduler(Section):
    """Which trials are stopped early. Each kind reads the settings that name it."""

    kind: Literal["fifo", "asha", "hyperband", "median", "pbt"] = "fifo"
    """`fifo` stops none; `pbt` lets bad trials go on from good ones with changed values."""
    grace_period: Positive = 1
    """asha, median: no trial is stopped before this epoch."""
    reduction_factor: Annotated[float, Field(gt=1, allow_inf_nan=False)] = 3
    """asha, hyperband: one in so many trials goes on at each rung."""
    min_samples: Positive = 3
    """median: the trials that must have come as far before one is stopped."""
    perturbation_interval: Positive = 3
    """pbt: epochs between two exchanges."""
    quantile_fraction: Annotated[float, Field(gt=0, le=0.5)] = 0.25
    """pbt: the share of trials that copy, and of those that are copied."""
    resample_probability: Annotated[float, Field(ge=0, le=1)] = 0.25
    """pbt: how often a value is drawn anew instead of moved a little."""


class SweepConfig(Config):
    """What `magtkd sweep` runs."""

    objective: tuple[Objective, ...] = (Objective(),)
    """One objective `{metric, mode}`, or a list of them."""
    search: Search = Search()
    scheduler: Scheduler = Scheduler()
    space: dict[str, Any] = Field(default_factory=dict)
    """Names of the configuration, each with `{choice: [...]}`, `{float: [low, high]}` or
    `{int: [low, high]}`, and where wanted `log`, `step`, `tie` and `when`."""

    @field_validator("objective", mode="before")
    @classmethod
    def _one_or_more(cls, objective: Any) -> Any:
        return [objective] if isinstance(objective, Mapping | Objective) else objective

    @field_validator("objective")
    @classmethod
    def _distinct(cls, objective: tuple[Objective, ...]) -> tuple[Objective, ...]:
        if not objective:
            raise ValueError("there is none; write {metric: dev/weighted_f1, mode: max}")
        metrics = [one.metric for one in objective]
        for metric in metrics:
            if metrics.count(metric) > 1:
                raise ValueError(f"{metric!r} is there twice; keep one")
        return objective

    @field_validator("space", mode="before")
    @classmethod
    def _space(cls, tree: Any) -> dict[str, Any]:
        return Space.parse({} if tree is None else tree).to_tree()

    @cached_property
    def search_space(self) -> Space:
        """The search space as value objects."""
        return Space.parse(self.space)


def load_sweep(path: str | Path, overrides: Sequence[str] = ()) -> SweepConfig:
    """Read, merge, override and check a sweep.

    Raises:
        ConfigError: a file, key or value that is wrong by itself.
        SweepError: parts that do not fit each other; see `check_sweep`.
    """
    sweep = load_config(path, overrides, SweepConfig)
    try:
        check_sweep(sweep)
    except SweepError as error:
        raise SweepError(f"{path}: {error}") from None
    return sweep


def base_of(sweep: SweepConfig) -> Config:
    """The plain configuration that a sweep varies."""
    return Config.model_validate({name: getattr(sweep, name) for name in Config.model_fields})


def config_of(
    sweep: SweepConfig,
    values: Mapping[str, Any],
    changes: Mapping[int, Mapping[str, Any]] | None = None,
) -> Config:
    """The plain configuration of a trial with these values, and with what population based
    training changed on the way as `fusion.changes`.

    Raises:
        ConfigError: the values are not legal together.
    """
    changed = {"fusion.changes": changes} if changes else {}
    return with_values(base_of(sweep), {**values, **changed})


def max_epochs(sweep: SweepConfig) -> int:
    """The most epochs that a trial's fusion may have."""
    owner = sweep.search_space.owner("fusion.epochs")
    if owner is None:
        return sweep.fusion.epochs
    largest = max(int(value) for value in owner[1].probes() if value is not None)
    return max(largest, sweep.fusion.epochs) if owner[1].when else largest


def bracket_sizes(sweep: SweepConfig) -> tuple[int, ...]:
    """The trials in each bracket of one band of `hyperband` (arXiv 1603.06560, as Ray rounds)."""
    epochs, factor = max_epochs(sweep), sweep.scheduler.reduction_factor
    num_brackets = round(math.log(epochs) / math.log(factor)) + 1
    return tuple(
        math.ceil(num_brackets / (halvings + 1) * factor**halvings)
        for halvings in range(num_brackets)
        if int(epochs * factor**-halvings) > 0
    )


# --- what does not fit together ---------------------------------------------------------------


def check_sweep(sweep: SweepConfig) -> None:
    """Check what the sections say about each other.

    Raises:
        SweepError: names or values that the configuration does not have, a sampler or scheduler
            that cannot search this space, several objectives where one is needed, more epochs of
            grace than there are.
    """
    try:
        sweep.search_space.check(base_of(sweep))
    except SweepError as error:
        raise SweepError(f"space: {error}") from None
    _check_sampler(sweep)
    _check_objectives(sweep)
    _check_scheduler(sweep)


def _check_sampler(sweep: SweepConfig) -> None:
    sampler, space = sweep.search.sampler, sweep.search_space
    if not space and sampler != "grid":
        raise SweepError(
            f"space: it is empty, so sampler {sampler!r} has nothing to choose; name values to "
            "search, or use sampler 'grid', which runs the configuration once"
        )
    if sampler == "grid":
        for name, entry in space.entries:
            if entry.points() is None:
                raise SweepError(
                    f"space: {name}: a grid needs a finite range; give it a step, write a choice, "
                    "or use sampler 'qmc'"
                )
    if sampler == "cmaes" and not any(
        isinstance(entry, FloatRange | IntRange) and len(entry.probes()) > 1
        for entry in space.unconditional.values()
    ):
        raise SweepError(
            "search.sampler: cmaes searches float and int ranges without `when`, and the space "
            "has none; use tpe"
        )


def _check_objectives(sweep: SweepConfig) -> None:
    if len(sweep.objective) == 1:
        return
    if sweep.search.sampler == "cmaes":
        raise SweepError(
            f"search.sampler: cmaes takes one objective, not {len(sweep.objective)}; "
            "use tpe, gp or nsga2"
        )
    if sweep.scheduler.kind != "fifo":
        raise SweepError(
            f"scheduler.kind: {sweep.scheduler.kind} stops trials by one objective, and there are "
            f"{len(sweep.objective)}; use fifo, or keep one objective"
        )


def _check_scheduler(sweep: SweepConfig) -> None:
    scheduler, search = sweep.scheduler, sweep.search
    epochs = max_epochs(sweep)
    if scheduler.kind in {"asha", "median"} and scheduler.grace_period > epochs:
        raise SweepError(
            f"scheduler.grace_period: {scheduler.grace_period} is more than the {epochs} epochs "
            "of fusion; lower it, or raise fusion.epochs"
        )
    if scheduler.kind == "hyperband":
        _check_concurrent(sweep, min(search.num_trials, sum(bracket_sizes(sweep))))
    if scheduler.kind == "pbt":
        _check_population(sweep, epochs)


def _check_concurrent(sweep: SweepConfig, needed: int) -> None:
    if sweep.search.max_concurrent < needed:
        raise SweepError(
            f"search.max_concurrent: {sweep.search.max_concurrent} is too few for scheduler "
            f"{sweep.scheduler.kind}, which compares trials that wait for each other; set it to "
            f"{needed} (trials hold no accelerator), or use asha"
        )


def _check_population(sweep: SweepConfig, epochs: int) -> None:
    if sweep.search.num_trials < 2:
        raise SweepError("search.num_trials: scheduler pbt needs a population of at least 2")
    if sweep.scheduler.perturbation_interval >= epochs:
        raise SweepError(
            f"scheduler.perturbation_interval: {sweep.scheduler.perturbation_interval} leaves no "
            f"exchange within the {epochs} epochs of fusion; lower it"
        )
    changeable = [f"fusion.{name}" for name in FusionConfig.CHANGEABLE]
    for name, entry in sweep.search_space.entries:
        if name not in changeable:
            raise SweepError(
                f"space: {name}: scheduler pbt changes values on the way, and this one cannot "
                f"change; it can search {', '.join(changeable)}"
            )
        if entry.tie or entry.when:
            raise SweepError(
                f"space: {name}: scheduler pbt takes no `tie` and no `when`; drop them"
            )
    if not sweep.search_space:
        raise SweepError("space: it is empty, and scheduler pbt has nothing to change")
    _check_concurrent(sweep, sweep.search.num_trials)
