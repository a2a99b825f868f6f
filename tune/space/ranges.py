"""The values that one name of a search space may take: a choice, or a range of numbers.

Value objects: equal when they have the same values, and written to a sweep file as read from it.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol, TypeAlias, overload

from magtkd.errors import SweepError, shorten

__all__ = [
    "CONFIDENCES",
    "KINDS",
    "Choice",
    "Conditions",
    "Entry",
    "FloatRange",
    "IntRange",
    "Prior",
    "Scalar",
    "Suggester",
    "is_compound",
    "named_value",
    "value_name",
]

Scalar: TypeAlias = str | int | float | bool | None
KINDS = ("choice", "float", "int")
CONFIDENCES = ("low", "medium", "high")
_COMPOUND = ("[", "{")
MOST_STEPS = 2**53
"""A float has no more whole numbers in a row."""

Conditions: TypeAlias = tuple[tuple[str, tuple[Scalar, ...]], ...]


def value_name(value: Any) -> Scalar:
    """A value of a choice as samplers, ledgers, tables and MLflow have it: a list or a mapping as
    JSON, anything else as it is. `named_value` is the way back.

    Raises:
        SweepError: it is neither, or has something in it that is no value.
    """
    if isinstance(value, Scalar):
        return value
    try:
        if isinstance(value, list | tuple | Mapping):
            return json.dumps(value, sort_keys=True, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        pass
    raise SweepError(
        f"choice: {shorten(repr(value))} is neither a value nor a list or mapping of values"
    )


def named_value(name: Scalar) -> Any:
    """The value that has a name."""
    if isinstance(name, str) and name.startswith(_COMPOUND):
        try:
            return json.loads(name)
        except (json.JSONDecodeError, RecursionError):
            return name
    return name


def is_compound(name: Scalar) -> bool:
    """Whether a name stands for a list or a mapping."""
    return isinstance(named_value(name), list | dict)


@dataclass(frozen=True)
class Prior:
    """What a person believes to be a good value."""

    value: Scalar
    confidence: str = "medium"
    """One of `CONFIDENCES`."""


class Suggester(Protocol):
    """What a value is asked from: `optuna.trial.BaseTrial`, or anything of the same shape."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any: ...

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None, log: bool
    ) -> float: ...

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int: ...


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What all kinds of values have: names that are tied to them, conditions, a prior."""

    tie: tuple[str, ...] = ()
    """Other names that take the same value."""
    when: Conditions = ()
    """Names and the values they must have: `((name, (value, ...)), ...)`."""
    prior: Prior | None = None
    """Where the search draws more often, as long as it knows little else."""

    def points(self) -> Sequence[Scalar] | None:
        """All values in order, those of a range made as they are read; None where they are not
        finite."""
        raise NotImplementedError

    def probes(self) -> Sequence[Scalar]:
        """The values that are validated: all choices, the ends of a range."""
        raise NotImplementedError

    def contains(self, value: Any) -> bool:
        """Whether the value may be suggested."""
        raise NotImplementedError

    def suggest(self, trial: Suggester, name: str) -> Scalar:
        """A value from a trial of Optuna's."""
        raise NotImplementedError

    def clip(self, value: Any) -> Any:
        """The nearest value of the range; a choice knows no nearness and leaves it."""
        return value

    def resample(self, generator: random.Random) -> Scalar:
        """A value drawn without regard to any other."""
        points = self.points()
        assert points is not None
        return generator.choice(points)

    def to_tree(self) -> dict[str, Any]:
        """The entry as it is written in a sweep file."""
        tree = self._values_to_tree()
        if self.tie:
            tree["tie"] = list(self.tie)
        if self.when:
            tree["when"] = {
                name: named[0] if len(named) == 1 and not isinstance(named[0], list) else named
                for name, allowed in self.when
                for named in [[named_value(value) for value in allowed]]
            }
        if self.prior is not None:
            tree["prior"] = named_value(self.prior.value)
            if self.prior.confidence != Prior.confidence:
                tree["prior_confidence"] = self.prior.confidence
        return tree

    def _values_to_tree(self) -> dict[str, Any]:
        raise NotImplementedError


@dataclass(frozen=True)
class Choice(Entry):
    """One of a few values, in no order; lists and mappings are there by `value_name`."""

    values: tuple[Scalar, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise SweepError("choice: there is no value to choose from; name at least one")
        for index, value in enumerate(self.values):
            if isinstance(value, float) and not math.isfinite(value):
                raise SweepError(f"choice: {value} is not finite")
            if value in self.values[:index]:
                raise SweepError(f"choice: {shorten(repr(value))} is duplicated; keep one")

    def points(self) -> Sequence[Scalar]:
        return self.values

    def probes(self) -> Sequence[Scalar]:
        return self.values

    def contains(self, value: Any) -> bool:
        # True is 1 to Python, and another value to whoever wrote it.
        same = (one for one in self.values if one == value)
        return any(isinstance(one, bool) == isinstance(value, bool) for one in same)

    def suggest(self, trial: Suggester, name: str) -> Scalar:
        chosen: Scalar = trial.suggest_categorical(name, self.values)
        return chosen

    def _values_to_tree(self) -> dict[str, Any]:
        return {"choice": [named_value(value) for value in self.values]}


def _exact(value: float) -> Fraction:
    """A number as its decimals are written, so that 0.1 + 2 * 0.1 is 0.3."""
    return Fraction(str(value))


class _Steps(Sequence[float]):
    """`low`, `low + step`, ... up to `high`."""

    def __init__(self, low: float, high: float, step: float) -> None:
        self._low, self._step = _exact(low), _exact(step)
        self._indices = range(int((_exact(high) - self._low) / self._step) + 1)

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, index: int) -> float: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[float, ...]: ...
    def __getitem__(self, index: int | slice) -> float | tuple[float, ...]:
        if isinstance(index, slice):
            return tuple(self[one] for one in self._indices[index])
        return float(self._low + self._indices[index] * self._step)

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int | float) and self[self.nearest(value)] == value

    def index(self, value: Any, start: int = 0, stop: int | None = None) -> int:
        found = self.nearest(value)
        if value not in self or found not in self._indices[start:stop]:
            raise ValueError(f"{value!r} is not in the range")
        return found

    def nearest(self, value: float) -> int:
        """The index of the value that is nearest."""
        return min(max(round((_exact(value) - self._low) / self._step), 0), len(self) - 1)


@dataclass(frozen=True)
class FloatRange(Entry):
    """Real numbers from `low` to `high`, both included; `step` makes them a finite list."""

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def __post_init__(self) -> None:
        _check_range("float", self.low, self.high, log=self.log)
        if self.step is None:
            return
        if self.log:
            raise SweepError("float: step and log exclude each other; keep one, or use choice")
        _check_step("float", self.low, self.high, self.step)

    def points(self) -> Sequence[float] | None:
        if self.low == self.high:
            return (self.low,)
        return None if self.step is None else _Steps(self.low, self.high, self.step)

    def probes(self) -> Sequence[float]:
        if self.low == self.high:
            return (self.low,)
        # One value between the ends shows whether a name takes real numbers.
        between = self.low + (self.high - self.low) * (3 - math.sqrt(5)) / 2
        return (self.low, self.clip(between), self.high)

    def contains(self, value: Any) -> bool:
        if not isinstance(value, int | float) or isinstance(value, bool):
            return False
        near, nearest = 1e-8 * (self.step or 0.0), self.clip(value)
        return self.low <= value <= self.high and math.isclose(nearest, value, abs_tol=near)

    def clip(self, value: float) -> float:
        value = min(max(value, self.low), self.high)
        if self.step is None:
            return value
        points = _Steps(self.low, self.high, self.step)
        return points[points.nearest(value)]

    def resample(self, generator: random.Random) -> Scalar:
        if self.points() is not None:
            return super().resample(generator)
        if self.log:
            drawn = math.exp(generator.uniform(math.log(self.low), math.log(self.high)))
            return self.clip(drawn)
        return generator.uniform(self.low, self.high)

    def suggest(self, trial: Suggester, name: str) -> float:
        return trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)

    def _values_to_tree(self) -> dict[str, Any]:
        tree: dict[str, Any] = {"float": [self.low, self.high]}
        if self.log:
            tree["log"] = True
        if self.step is not None:
            tree["step"] = self.step
        return tree


@dataclass(frozen=True)
class IntRange(Entry):
    """Whole numbers from `low` to `high`, both included, `step` apart."""

    low: int
    high: int
    log: bool = False
    step: int = 1

    def __post_init__(self) -> None:
        _check_range("int", self.low, self.high, log=self.log)
        if self.log and self.step != 1:
            raise SweepError("int: step and log exclude each other; keep one, or use choice")
        _check_step("int", self.low, self.high, self.step)

    def points(self) -> Sequence[int]:
        return range(self.low, self.high + 1, self.step)

    def probes(self) -> Sequence[int]:
        # The value after the lower end shows what must be even, or a multiple.
        return tuple(dict.fromkeys((self.low, min(self.low + self.step, self.high), self.high)))

    def contains(self, value: Any) -> bool:
        # Of a number that is no `int`, `range` would look at every value.
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        return is_whole and value in self.points()

    def suggest(self, trial: Suggester, name: str) -> int:
        return trial.suggest_int(name, self.low, self.high, step=self.step, log=self.log)

    def _values_to_tree(self) -> dict[str, Any]:
        tree: dict[str, Any] = {"int": [self.low, self.high]}
        if self.log:
            tree["log"] = True
        if self.step != 1:
            tree["step"] = self.step
        return tree


def _check_range(kind: str, low: float, high: float, *, log: bool) -> None:
    if low > high:
        raise SweepError(f"{kind}: the range goes from {low} to {high}; write the lower end first")
    if log and low <= 0:
        raise SweepError(f"{kind}: log needs a range above 0, but it begins at {low}")


def _check_step(kind: str, low: float, high: float, step: float) -> None:
    if step <= 0:
        raise SweepError(f"{kind}: step is {step}; it must be above 0")
    number, rest = divmod(_exact(high) - _exact(low), _exact(step))
    if number > MOST_STEPS:
        raise SweepError(
            f"{kind}: steps of {step} from {low} to {high} are more than {MOST_STEPS}; take larger "
            "steps, or a range of real numbers"
        )
    if rest:
        exact = _exact(high) - rest
        last = int(exact) if kind == "int" else float(exact)
        raise SweepError(f"{kind}: steps of {step} from {low} end at {last}, not {high}; write so")
