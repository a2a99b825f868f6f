"""A candidate: what a trial is, as a value. An assignment: a candidate in the hands of Ray Tune."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import msgspec

from magtkd.config import Config, with_values
from magtkd.pipeline import Plan, Source, make_plan
from tune.space.ranges import Scalar, named_value
from tune.space.space import Values

__all__ = ["Assignment", "Candidate"]

FUSION = "fusion."


class Candidate(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The values that a trial is trained with.

    Raises nothing by itself: whether values are legal together is seen when `config` is called.
    """

    values: Values
    """Values by dotted name, as the sampler suggested them."""
    changes: dict[int, dict[str, Scalar]] = {}
    """What population based training changed since: `{epoch: {name in fusion: value}}`, each valid
    from that epoch (from 1) on. With `values`, the whole history of the trial's session, which may
    be another trial's up to the last exchange."""
    seed: int | None = None
    """A training seed of its own; None for that of the base configuration."""

    @property
    def current(self) -> Values:
        """The values that hold now, all changes applied."""
        current = dict(self.values)
        for changed in self.changes.values():
            current |= {FUSION + name: value for name, value in changed.items()}
        return current

    def config(self, base: Config) -> Config:
        """The plain configuration of a trial with this candidate.

        Raises:
            ConfigError: the values are not legal together.
        """
        values = {name: named_value(value) for name, value in self.values.items()}
        if self.changes:
            values["fusion.changes"] = self.changes
        if self.seed is not None:
            values["seed"] = self.seed
        return with_values(base, values)

    def plan(self, base: Config, source: Source) -> Plan:
        """The stages of its configuration and their keys.

        Raises:
            InputError: the values are not legal together, or the table lacks what they need.
        """
        return make_plan(self.config(base), source)

    @property
    def name(self) -> str:
        """16 hexadecimal digits that change with the candidate: a session's checkpoint from before
        an exchange must not be taken for one from after it."""
        parts: list[Any] = [self.values, {str(epoch): new for epoch, new in self.changes.items()}]
        if self.seed is not None:
            parts.append(self.seed)
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    def changed(self, epoch: int, wanted: Mapping[str, Scalar]) -> Candidate:
        """This candidate with the wanted values from an epoch on; itself where it has them.

        Args:
            epoch: the first epoch (from 1) with the new values.
            wanted: values by dotted name, all of the fusion stage.
        """
        current = self.current
        new = {
            name.removeprefix(FUSION): value
            for name, value in wanted.items()
            if current.get(name) != value
        }
        if not new:
            return self
        changes = self.changes | {epoch: self.changes.get(epoch, {}) | new}
        return msgspec.structs.replace(self, changes=changes)


class _Past(msgspec.Struct, frozen=True):
    """What Ray carries along of a trial that is resumed."""

    epoch: int
    candidate: Candidate


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """A candidate as trial `number`; `epoch` is the last one that the ledger has of it.

    Ray Tune's configuration of a trial is flat: the current values by dotted name, which its
    schedulers may change, the number, and where there is one the past as JSON text.
    """

    number: int
    candidate: Candidate
    epoch: int = 0

    NUMBER = "trial"
    PAST = "past"

    def to_ray(self) -> dict[str, Any]:
        """Ray Tune's configuration of the trial."""
        config: dict[str, Any] = {**self.candidate.current, self.NUMBER: self.number}
        if self.epoch or self.candidate.changes or self.candidate.seed is not None:
            past = _Past(self.epoch, self.candidate)
            config[self.PAST] = msgspec.json.encode(past).decode()
        return config

    @classmethod
    def from_ray(cls, config: Mapping[str, Any]) -> tuple[Self, Values]:
        """The assignment in Ray's configuration, and the values that Ray now wants for it."""
        wanted = dict(config)
        number, past = int(wanted.pop(cls.NUMBER)), wanted.pop(cls.PAST, None)
        if past is None:
            return cls(number=number, candidate=Candidate(values=wanted)), wanted
        known = msgspec.json.decode(past, type=_Past)
        return cls(number=number, candidate=known.candidate, epoch=known.epoch), wanted
