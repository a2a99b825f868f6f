"""The configuration of a sweep: a configuration, and what is searched how around it.

Imports neither Ray nor Optuna. `load_sweep` checks everything that can be wrong before a sweep
starts, apart from what needs the data (labels) or the cluster (resources).
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)

from magtkd.config import (
    Config,
    Section,
    StageResources,
    get_value,
    load_config,
    nearest,
    reason,
)
from magtkd.errors import SweepError, and_more, shorten
from tune.samplers import SAMPLERS
from tune.samplers import Sampler as SamplerMember
from tune.schedulers import SCHEDULERS, Fifo, Scheduler, SchedulerSection
from tune.space import Objective, Problem, Space, Values, check_values, value_name

__all__ = [
    "Budget",
    "Search",
    "StopWhen",
    "SweepConfig",
    "check_new_sweep",
    "check_sweep",
    "load_sweep",
]

Positive = Annotated[int, Field(ge=1, lt=2**31)]
Hours = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Budget(Section):
    """What a sweep may cost. The first that is reached ends it: what runs is saved, and stays
    unfinished."""

    hours: Hours | None = None
    """Hours of the wall clock in which a driver ran, those before a resume included."""
    stage_hours: Hours | None = None
    """Hours of training, of all stages on all workers together."""
    trials: Positive | None = None
    """Trials that are begun; these run to their end."""


class StopWhen(Section):
    """When a sweep ends since nothing comes of it any more. What runs is saved, and stays
    unfinished."""

    no_gain_for: Positive | None = None
    """Trials that ended one after another without a better objective."""
    no_gain_for_hours: Hours | None = None
    """Hours without a better objective, counted as those of the budget."""


class Search(Section):
    """Which values are tried. `gp`, `cmaes` and `nsga2` learn from completed trials only."""

    sampler: Annotated[str, Field(json_schema_extra={"enum": list(SAMPLERS)})] = "tpe"
    """How the next trial's values are chosen."""
    num_trials: Positive | None = 20
    """Trials in all; a grid ends before that after its last point. Where `budget` is given, there
    are as many as it allows by default."""
    budget: Budget = Budget()
    """What the sweep may cost."""
    stop_when: StopWhen = StopWhen()
    """When the sweep ends before its last trial."""
    max_concurrent: Positive = 2
    """Trials that are live at the same time."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of the sampler and the scheduler, apart from the training seed."""
    start: tuple[Literal["base"] | dict[str, Any], ...] = ("base",)
    """What the first trials have: `base`, the configuration's own values, or values of the search
    space by name, the others being the configuration's. They need not be in the space. A grid has
    its own points alone."""

    learn_from: tuple[str, ...] = ()
    """Earlier sweeps from whose trials the search starts: names in this storage, or
    `STORAGE/sweeps/NAME`. Their values have to be in this space. Scores count where table,
    objective and what is not searched are the same, the order of trials elsewhere. Read by
    `cost_aware_tpe`."""

    @model_validator(mode="before")
    @classmethod
    def _as_many_as_the_budget_allows(cls, tree: Any) -> Any:
        if not isinstance(tree, Mapping) or "num_trials" in tree:
            return tree
        budget = tree.get("budget")
        given = budget.values() if isinstance(budget, Mapping) else ()
        return tree if all(limit is None for limit in given) else {**tree, "num_trials": None}

    @property
    def most_trials(self) -> int | None:
        """Trials that there may be; None where only the budget's hours end the sweep."""
        limits = (self.num_trials, self.budget.trials)
        return min((limit for limit in limits if limit is not None), default=None)

    @field_validator("budget", "stop_when", mode="before")
    @classmethod
    def _none_of_it(cls, section: Any) -> Any:
        return {} if section is None else section

    @field_validator("start", mode="before")
    @classmethod
    def _values_or_base(cls, start: Any) -> Any:
        if not isinstance(start, list | tuple):
            raise ValueError(f"must be a list such as [base], got {shorten(repr(start))}")
        for place, one in enumerate(start):
            is_mapping = isinstance(one, Mapping) and all(isinstance(name, str) for name in one)
            if one != "base" and not is_mapping:
                raise ValueError(
                    f"entry {place}: must be base, or values by name such as {{fusion.depth: 2}}, "
                    f"got {shorten(repr(one))}"
                )
        return start

    @field_validator("sampler")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in SAMPLERS:
            hint = nearest(name, list(SAMPLERS))
            raise ValueError(
                f"{shorten(name)!r}: no such sampler{hint}; known are {', '.join(SAMPLERS)}"
            )
        return name


class SweepConfig(Config):
    """What `magtkd sweep` runs."""

    objective: tuple[Objective, ...] = (Objective(),)
    """One objective `{metric, mode}`, or a list of them."""
    search: Search = Search()
    scheduler: Scheduler = Fifo()
    """Which trials are stopped early."""
    space: dict[str, Any] = Field(default_factory=dict)
    """Names of the configuration, each with `{choice: [...]}`, `{float: [low, high]}` or
    `{int: [low, high]}`, and where wanted `log`, `step`, `tie`, `when`, `prior` and
    `prior_confidence`."""

    _unread_of_scheduler: dict[str, str] = PrivateAttr(default_factory=dict)

    @model_validator(mode="wrap")
    @classmethod
    def _note_unread(cls, tree: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        sweep = handler(tree)
        scheduler = tree.get("scheduler") if isinstance(tree, Mapping) else None
        if isinstance(scheduler, Mapping):
            own = type(sweep.scheduler).model_fields
            for name, value in scheduler.items():
                owner = _owner_of(name)
                if owner and name not in own and value != owner.model_fields[name].default:
                    why = f"scheduler.kind is {sweep.scheduler.kind}; read by {_readers(name)}"
                    sweep._unread_of_scheduler[f"scheduler.{name}"] = why
        return sweep

    @model_validator(mode="before")
    @classmethod
    def _epoch_of_the_objective(cls, tree: Any) -> Any:
        """What is optimised is the value of the epoch that is kept, so the objective chooses the
        epoch. Ledgers name another where their sweeps were begun with it."""
        if not isinstance(tree, Mapping):
            return tree
        fusion, objective = tree.get("fusion", {}), tree.get("objective", {})
        if not isinstance(fusion, Mapping) or "select" in fusion or not objective:
            return tree
        try:
            first = Objective.model_validate(
                objective[0] if isinstance(objective, list | tuple) else objective
            )
        except ValidationError:
            return tree  # the objective's own field says what is wrong with it
        return {**tree, "fusion": {**fusion, "select": first.select}}

    @property
    def unread_of_scheduler(self) -> dict[str, str]:
        """The settings of other schedulers than this sweep's that its file gave, each with the
        reason why it has no effect."""
        return dict(self._unread_of_scheduler)

    @field_validator(
        "objective", mode="before", json_schema_input_type=Objective | tuple[Objective, ...]
    )
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
                raise ValueError(f"{metric!r} is duplicated; keep one")
        return objective

    @field_validator("scheduler", mode="before")
    @classmethod
    def _of_its_kind(cls, scheduler: Any) -> Any:
        """The settings of one kind: those of others have no effect, so that `scheduler.kind=fifo`
        can stand beside a file's `grace_period`. Ledgers of format 1 have the settings of all
        kinds."""
        if not isinstance(scheduler, Mapping):
            return scheduler
        kind = scheduler.get("kind", "fifo")
        if not isinstance(kind, str) or kind not in SCHEDULERS:
            hint = nearest(kind, list(SCHEDULERS)) if isinstance(kind, str) else ""
            raise ValueError(
                f"kind: {shorten(repr(kind))}: no such scheduler{hint}; known are "
                f"{', '.join(SCHEDULERS)}"
            )
        own = SCHEDULERS[kind].model_fields
        kept: dict[str, Any] = {"kind": kind}
        for name, value in scheduler.items():
            owner = None if name in own else _owner_of(name)
            if owner is None:
                kept[name] = value
            else:
                _check_value(owner, name, value)
        return kept

    @field_validator("space", mode="before")
    @classmethod
    def _space(cls, tree: Any) -> dict[str, Any]:
        return Space.parse({} if tree is None else tree).to_tree()

    @cached_property
    def search_space(self) -> Space:
        """The search space as value objects."""
        return Space.parse(self.space)

    @cached_property
    def base(self) -> Config:
        """The plain configuration that the sweep varies."""
        return Config.model_validate({name: getattr(self, name) for name in Config.model_fields})

    @cached_property
    def problem(self) -> Problem:
        """What samplers and schedulers know of the sweep."""
        return Problem(
            space=self.search_space,
            base=self.base,
            objectives=self.objective,
            num_trials=self.search.most_trials,
            max_concurrent=self.search.max_concurrent,
            seed=self.search.seed,
            start=self._start(),
        )

    def _start(self) -> tuple[Values, ...]:
        found: list[Values] = []
        # All of them, also where there are fewer trials: a sweep that is continued may get more.
        for one in self.search.start:
            if one == "base" and self._untied:
                continue
            own = {} if one == "base" else _own_values(one)
            values = self.search_space.complete(own, self.base)
            with contextlib.suppress(SweepError):
                values = self.search_space.as_written(values, self.base)
                if values and values not in found:
                    found.append(values)
        return tuple(found)

    @property
    def _untied(self) -> str:
        """Tied names that differ in the configuration, which then is no trial of this sweep."""
        for name, entry in self.search_space.entries:
            for other in entry.tie:
                if get_value(self.base, name) != get_value(self.base, other):
                    return f"{name} and {other}"
        return ""

    @property
    def unread_of_sampler(self) -> dict[str, str]:
        """What the sampler does not read and the file gave, each with the reason."""
        unread = {}
        if self.search.sampler == "grid" and self.search.start not in ((), ("base",)):
            unread["search.start"] = "search.sampler is grid, which has its own points alone"
        if not self.sampler.reads_knowledge:
            readers = ", ".join(name for name, one in SAMPLERS.items() if one.reads_knowledge)
            why = f"search.sampler is {self.search.sampler}; read by {readers}"
            for name, entry in self.search_space.entries:
                if entry.prior is not None:
                    unread[f"space.{name}.prior"] = why
        return unread

    @property
    def outside_space(self) -> tuple[str, ...]:
        """A line for each of the first trials that has values outside the space."""
        if self.search.sampler == "grid":
            return ()
        lines = []
        if "base" in self.search.start and self._untied:
            lines.append(
                f"search.start: base: {self._untied} are tied, and differ in the configuration, "
                "which is therefore not tried"
            )
        for number, values in enumerate(self.problem.start):
            outside = [
                f"{name} {'null' if values[name] is None else shorten(str(values[name]))}"
                for name, entry in self.search_space.entries
                if name in values and not entry.contains(values[name])
            ]
            if outside:
                lines.append(
                    f"trial {number}, of search.start, has values outside the space, and is tried "
                    f"all the same: {and_more(outside, 5)}"
                )
        return tuple(lines)

    @property
    def with_encoder(self) -> set[str]:
        """The stages that train a transformers encoder in some trial."""
        stages = ("teacher", "audio", "video")
        searched = {name for name, _ in self.search_space.entries}
        return {
            stage
            for stage in stages
            if getattr(self, stage).encoder != "features" or f"{stage}.encoder" in searched
        }

    def with_resources(self, resources: StageResources) -> SweepConfig:
        """The same sweep with other resources."""
        return SweepConfig.model_validate(
            self.model_dump(mode="json") | {"resources": resources.model_dump(mode="json")}
        )

    @property
    def sampler(self) -> SamplerMember:
        """The sampler that `search.sampler` names."""
        return SAMPLERS[self.search.sampler]


def _own_values(given: Mapping[str, Any]) -> Values:
    return {name: value_name(value) for name, value in given.items()}


def _owner_of(name: str) -> type[SchedulerSection] | None:
    """A scheduler that has a setting of this name."""
    return next((one for one in SCHEDULERS.values() if name in one.model_fields), None)


def _readers(name: str) -> str:
    return ", ".join(kind for kind, one in SCHEDULERS.items() if name in one.model_fields)


def _check_value(section: type[SchedulerSection], name: str, value: Any) -> None:
    """What has no effect is checked all the same: it may have with the next edit of the file."""
    try:
        section.model_validate({name: value})
    except ValidationError as error:
        raise ValueError(f"{name}: {reason(error.errors()[0], section)}") from None


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


def check_sweep(sweep: SweepConfig) -> None:
    """Check that the sections fit each other.

    Raises:
        SweepError: an objective whose worst value would be searched, or of which another value than
            the searched one would be kept, names or values that the configuration does not have, a
            sampler or scheduler that cannot search this space, several objectives where one is
            needed, more epochs of grace than there are, nothing that ends the sweep.
    """
    for objective in sweep.objective:
        objective.check()
    _check_select(sweep)
    try:
        sweep.search_space.check(sweep.base)
    except SweepError as error:
        raise SweepError(f"space: {error}") from None
    _check_start(sweep)
    _check_end(sweep)
    if sweep.search.learn_from and not sweep.sampler.reads_knowledge:
        readers = [name for name, one in SAMPLERS.items() if one.reads_knowledge]
        raise SweepError(
            f"search.learn_from: sampler {sweep.search.sampler} takes no trials of earlier sweeps; "
            f"use {' or '.join(readers)}"
        )
    sweep.sampler.check(sweep.problem)
    sweep.scheduler.check(sweep.problem)
    if sweep.sampler.learns_from_completed and sweep.scheduler.stops_trials:
        raise SweepError(
            f"search.sampler: {sweep.sampler.name} learns from completed trials only, and "
            f"scheduler {sweep.scheduler.kind} stops most of them before their end; use sampler "
            "tpe, which learns from stopped trials too, or scheduler fifo"
        )


def check_new_sweep(sweep: SweepConfig) -> None:
    """Check a sweep that is to begin: what earlier versions took is refused here, and sweeps that
    were begun with it are resumed all the same.

    Raises:
        SweepError: the seed is searched, or as for `check_sweep`.
    """
    if sweep.search_space.owner("seed") is not None:
        raise SweepError(
            "space: seed: is no hyperparameter: the luckiest one would win; leave it out, and "
            "train the best configurations with fresh seeds afterwards: "
            f"magtkd confirm {sweep.name}"
        )
    check_sweep(sweep)


def _check_start(sweep: SweepConfig) -> None:
    space = sweep.search_space
    for place, given in enumerate(sweep.search.start):
        if given == "base":
            continue
        try:
            for name in given:
                if name not in space:
                    owner = space.owner(name)
                    if owner is not None:
                        raise SweepError(f"{shorten(name)}: is tied; give {owner[0]} instead")
                    known = [own for own, _ in space.entries]
                    raise SweepError(f"{shorten(name)}: not in the space{nearest(name, known)}")
            check_values(space.complete(_own_values(given), sweep.base), sweep.base)
        except SweepError as error:
            raise SweepError(f"search.start[{place}]: {error}") from None


def needs_num_trials(sweep: SweepConfig) -> dict[str, str]:
    """What of a sweep needs the number of trials, and what it takes from that, as the words before
    the number's name."""
    found = {
        f"search.sampler: {sweep.sampler.name}": sweep.sampler.needs_num_trials,
        f"scheduler.kind: {sweep.scheduler.kind}": sweep.scheduler.needs_num_trials,
    }
    return {place: why for place, why in found.items() if why}


def _check_end(sweep: SweepConfig) -> None:
    search = sweep.search
    budget = (search.budget.hours, search.budget.stage_hours, search.most_trials)
    if all(limit is None for limit in budget):
        raise SweepError(
            "search.num_trials: null, and there is no budget that would end the sweep; give a "
            "number, or search.budget: {hours: 8}"
        )
    if search.num_trials is None:
        for place, why in needs_num_trials(sweep).items():
            raise SweepError(f"{place}: {why} search.num_trials; give it beside the budget")
    if len(sweep.objective) > 1 and search.stop_when != StopWhen():
        raise SweepError(
            f"search.stop_when: no_gain_for takes one objective, and there are "
            f"{len(sweep.objective)}; use search.budget, or keep one objective"
        )


def _check_select(sweep: SweepConfig) -> None:
    first = sweep.objective[0]
    if sweep.fusion.select != first.select:
        raise SweepError(
            f"fusion.select: {sweep.fusion.select!r}, but the objective is {first.metric}: trials "
            f"would be ranked by a value that is not their best; set it to {first.select!r}, "
            f"leave it out, or write objective: {{metric: dev/{sweep.fusion.select}}}"
        )
    if any("fusion.select" in (name, *entry.tie) for name, entry in sweep.search_space.entries):
        raise SweepError(
            "space: fusion.select: it is the objective's metric in every trial; remove it"
        )
