"""The plan of a configuration: the stages that its chain has, what each reads, and their keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from magtkd.config import Config
from magtkd.pipeline.members import FUSION, STAGES, find_stage
from magtkd.pipeline.source import Source

__all__ = ["Plan", "describe_stage", "make_plan", "stages_read"]


@dataclass(frozen=True)
class Plan:
    """The stages of one configuration in order: `keys` by stage, and the stages that each
    `reads`."""

    keys: dict[str, str]
    reads: dict[str, tuple[str, ...]]

    @property
    def upstream(self) -> tuple[str, ...]:
        """All stages but fusion."""
        return tuple(stage for stage in self.keys if stage != FUSION.name)

    @property
    def fusion_key(self) -> str:
        """The key of the stage that the chain ends with."""
        return self.keys[FUSION.name]

    def keys_read(self, stage: str) -> dict[str, str]:
        """The keys of the stages that a stage reads, by stage."""
        return {name: self.keys[name] for name in self.reads[stage]}


def make_plan(config: Config, source: Source) -> Plan:
    """The stages of a configuration and their keys. A stage that is not read is left out.

    Raises:
        ConfigError: the weights to start from cannot be read.
        DataError: the table has none of the modalities that the configuration could train on, or
            not those that it fuses.
    """
    plan = Plan({}, stages_read(config, source))
    for stage in plan.reads:
        plan.keys[stage] = find_stage(stage).key(config, source, plan.keys_read(stage))
    return plan


def stages_read(config: Config, source: Source) -> dict[str, tuple[str, ...]]:
    """What each stage that fusion needs reads, in the order of the chain.

    Raises:
        DataError: see `make_plan`.
    """
    found: dict[str, tuple[str, ...]] = {}
    waiting = [FUSION.name]
    for stage in waiting:  # which grows while it is read
        if stage not in found:
            found[stage] = find_stage(stage).reads(config, source)
            waiting.extend(found[stage])
    return {stage: found[stage] for stage in STAGES if stage in found}


def describe_stage(stage: str, config: Config, plan: Plan) -> dict[str, Any]:
    """What a stage's key was made of, as plain values: written beside its result. The section is
    whole: what is not read is in it too."""
    member = find_stage(stage)
    return {
        "stage": stage,
        "version": member.version,
        "section": member.section(config).model_dump(mode="json"),
        "seed": member.seed(config),
        "upstream": {} if member.is_keyed_by_table else plan.keys_read(stage),
    }
