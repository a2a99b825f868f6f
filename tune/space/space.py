"""The search space: which names of a configuration are searched, over which values.

Names are dotted names of the configuration. `tie` gives other names the same value; `when` makes a
name depend on the value that another name has in the trial's configuration.
"""

from __future__ import annotations

import itertools
import math
import random
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

from pydantic import BaseModel

from magtkd.config import Config, get_value, names_of, nearest, sections_of, with_values
from magtkd.errors import ConfigError, SweepError, and_more, shorten
from magtkd.pipeline import STAGES
from tune.space.parse import parse_entry
from tune.space.ranges import (
    KINDS,
    Choice,
    Entry,
    Scalar,
    Suggester,
    is_compound,
    named_value,
    value_name,
)

__all__ = ["Space", "Values", "base_value", "check_values"]

Values: TypeAlias = dict[str, Scalar]

NUM_CHECKED = 2000
"""Combinations of ends and choices that are validated at most."""

_STAGES = STAGES[1:]


def _section(name: str) -> str:
    return name.partition(".")[0]


def _depth(name: str) -> int:
    """How far downstream a name is: data and seed first, fusion last."""
    section = _section(name)
    return 1 + _STAGES.index(section) if section in _STAGES else 0


def _refusal(name: str) -> str | None:
    """Why a name of the configuration cannot be searched, if so."""
    if name == "name":
        return "it is a display name that changes no result"
    if name.startswith("resources."):
        return "it limits what a stage may use, and changes nothing that it computes"
    if name in {"data.path", "data.media", "data.synthetic"} or name.startswith("data.synthetic."):
        return "trials on different data cannot be compared; run one sweep for each"
    if name == "seeds" or name.startswith("seeds."):
        return "a seed is no hyperparameter; magtkd confirm repeats the best ones with fresh seeds"
    return {
        "fusion.recipe": "it stands for several values; search these, or run one sweep for each",
        "fusion.changes": "scheduler pbt finds such changes; search the values themselves",
    }.get(name)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The tree by dotted name; an override `space.fusion.depth=...` arrives as nested sections."""
    flat: dict[str, Any] = {}
    for key, inner in tree.items():
        name = f"{prefix}{key}"
        nested = isinstance(inner, Mapping) and inner and not set(KINDS) & set(inner)
        if nested and all(isinstance(value, Mapping) for value in inner.values()):
            flat |= _flat(inner, f"{name}.")
        else:
            flat[name] = inner
    return flat


_UNREAD: Any = object()
"""Stands for any value that no condition reads."""


@dataclass(frozen=True)
class Space:
    """Names and the values that they are searched over."""

    entries: tuple[tuple[str, Entry], ...] = ()

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for name, entry in self.entries:
            for own in (name, *entry.tie):
                if own in seen:
                    where = f"tie: {shorten(own)!r}" if own in entry.tie else "it"
                    raise SweepError(f"{shorten(name)}: {where} is in the space already; keep one")
                seen.add(own)
        for own in seen:
            outer = next((other for other in seen if own.startswith(f"{other}.")), None)
            if outer is not None:
                raise SweepError(
                    f"{shorten(own)}: it is in {outer}, whose choices have all of its values; "
                    "write it into these"
                )
        _ = self.order  # refuses cycles

    @classmethod
    def parse(cls, tree: Mapping[str, Any]) -> Space:
        """The space of a sweep file's `space:` mapping.

        Raises:
            SweepError: one line that begins with the name: not a range or choice, an empty or
                reversed range, a log scale that reaches 0, a duplicated value or name,
                cyclic conditions.
        """
        if not isinstance(tree, Mapping):
            raise SweepError(
                f"{shorten(repr(tree))} is not a mapping of names to ranges or choices"
            )
        entries = []
        for name, entry in _flat(tree).items():
            try:
                entries.append((name, parse_entry(entry)))
            except SweepError as error:
                raise SweepError(f"{shorten(name)}: {error}") from None
        return cls(tuple(entries))

    def to_tree(self) -> dict[str, Any]:
        """The mapping that `parse` reads back to an equal space."""
        return {name: entry.to_tree() for name, entry in self.entries}

    def __len__(self) -> int:
        return len(self.entries)

    def __contains__(self, name: object) -> bool:
        return any(name == own for own, _ in self.entries)

    def owner(self, name: str) -> tuple[str, Entry] | None:
        """The entry that decides a name's value: its own, or the one that it is tied to."""
        for own, entry in self.entries:
            if name == own or name in entry.tie:
                return own, entry
        return None

    @cached_property
    def sections(self) -> dict[str, frozenset[str]]:
        """The sections of the configuration that each own name changes, by those tied to it too."""
        return {name: frozenset(map(_section, (name, *entry.tie))) for name, entry in self.entries}

    @property
    def unconditional(self) -> dict[str, Entry]:
        """The names that every trial has."""
        return {name: entry for name, entry in self.entries if not entry.when}

    @cached_property
    def order(self) -> tuple[tuple[str, Entry], ...]:
        """The entries, upstream before downstream, but what a condition reads before all else."""
        waiting = sorted(self.entries, key=lambda item: min(map(_depth, (item[0], *item[1].tie))))
        done: list[tuple[str, Entry]] = []
        while waiting:
            for item in waiting:
                if self._parents(item[1]) <= {name for name, _ in done}:
                    break
            else:
                circle = and_more((name for name, _ in waiting), 10)
                raise SweepError(f"{waiting[0][0]}: when: the conditions are cyclic: {circle}")
            waiting.remove(item)
            done.append(item)
        return tuple(done)

    def _parents(self, entry: Entry) -> set[str]:
        """The names of the space that an entry's conditions read."""
        owners = (self.owner(name) for name, _ in entry.when)
        return {owner[0] for owner in owners if owner is not None}

    # --- values -------------------------------------------------------------------------------

    def suggest(self, trial: Suggester, base: Config) -> Values:
        """One trial's values, tied names included; names whose condition fails are left out.

        A condition reads the value in the trial's configuration: the suggested one, or the base
        configuration's where the name is not searched or its own condition fails.
        """
        values: Values = {}
        for name, entry in self.order:
            if _holds(entry, values, base):
                values |= dict.fromkeys((name, *entry.tie), entry.suggest(trial, name))
        return values

    def complete(self, own: Mapping[str, Scalar], base: Config) -> Values:
        """A trial's values with these of its own names, those of tied names included; a name that
        is not given has the base configuration's value, and one whose condition fails is left out.
        """
        given = {name: base_value(base, name) for name, _ in self.entries if name not in own}
        return self.suggest(_Given(given | dict(own)), base)

    def as_written(self, values: Values, base: Config) -> Values:
        """A trial's values as the space writes them, where it has equal ones: 2 for 2.0, the
        mapping of a choice for a section that is the same.

        Raises:
            SweepError: they are not legal together.
        """
        check_values(values, base)
        written = dict(values)
        for name, entry in self.entries:
            if name in values and not entry.contains(values[name]):
                wanted = _read(values, name, base)
                for value in entry.points() if isinstance(entry, Choice) else (wanted,):
                    other = written | dict.fromkeys((name, *entry.tie), value)
                    if entry.contains(value) and _read(other, name, base) == wanted:
                        written = other
                        break
        return written

    def has(self, values: Mapping[str, Scalar]) -> bool:
        """Whether all values of own names may be suggested."""
        return all(entry.contains(values[name]) for name, entry in self.entries if name in values)

    def own_values(self, values: Mapping[str, Scalar]) -> Values:
        """A trial's values without those of tied names."""
        return {name: values[name] for name, _ in self.entries if name in values}

    def points(self, base: Config) -> Iterator[Values]:
        """All distinct values of trials, upstream names varying slowest.

        Raises:
            SweepError: a range that is not finite.
        """
        for name, entry in self.entries:
            if entry.points() is None:
                raise SweepError(f"{name}: float: the range is not finite; give it a step")
        return self._combinations(base, lambda _, entry: entry.points() or ())

    def probed_points(self, base: Config, probe: int) -> Iterator[Values]:
        """Like `points`, with one value, by its place among the probes, of a range that is not
        finite."""
        return self._combinations(base, lambda _, entry: entry.points() or (entry.probes()[probe],))

    def num_points(self, base: Config) -> int | None:
        """The number of `points`, without walking through them; None where it is not finite."""
        number = self._count(0, {}, base)
        return None if math.isinf(number) else int(number)

    def _count(self, index: int, values: Values, base: Config) -> float:
        if index == len(self.order):
            return 1
        name, entry = self.order[index]
        if not _holds(entry, values, base):
            return self._count(index + 1, values, base)
        points = entry.points()
        if points is None:
            return math.inf
        names = (name, *entry.tie)
        read = {
            value
            for _, other in self.entries
            for parent, allowed in other.when
            if parent in names
            for value in allowed
            if entry.contains(value) and value in points
        }
        each = [
            self._count(index + 1, values | dict.fromkeys(names, value), base) for value in read
        ]
        # What holds for one value that no condition reads holds for all of them.
        others = len(points) - len(read)
        if others:
            unread = values | dict.fromkeys(names, _UNREAD)
            each.append(others * self._count(index + 1, unread, base))
        return sum(each)

    def _combinations(
        self, base: Config, values_of: Callable[[str, Entry], Iterable[Scalar]]
    ) -> Iterator[Values]:
        def walk(index: int, values: Values) -> Iterator[Values]:
            if index == len(self.order):
                yield values
                return
            name, entry = self.order[index]
            if not _holds(entry, values, base):
                yield from walk(index + 1, values)
                return
            for value in values_of(name, entry):
                yield from walk(index + 1, values | dict.fromkeys((name, *entry.tie), value))

        return walk(0, {})

    # --- checking -----------------------------------------------------------------------------

    def check(self, base: Config) -> None:
        """Check that every name and every value is legal in the configuration.

        Ends of ranges and choices are validated in all their combinations, or where these are
        more than `NUM_CHECKED`, in that many drawn with a fixed seed, each value among them.

        Raises:
            SweepError: one line that begins with the name.
        """
        known = [name for name in _searchable() if _refusal(name) is None]
        for name, entry in self.entries:
            for own in (name, *entry.tie):
                _check_name(own, shorten(name if own == name else f"{name}: tie: {own}"), known)
            for parent, allowed in entry.when:
                self._check_condition(f"{name}: when", parent, allowed, base)
        for values in self.probe(base, NUM_CHECKED):
            check_values(values, base)

    def _check_condition(
        self, place: str, parent: str, allowed: Sequence[Scalar], base: Config
    ) -> None:
        known = list(_searchable())
        if parent not in known:
            raise SweepError(f"{place}: {shorten(parent)}: no such name{nearest(parent, known)}")
        owner = self.owner(parent)
        for value in allowed:
            if owner is None:
                if is_compound(value):
                    raise SweepError(
                        f"{place}: {parent}: it is not searched, so compare it with a single "
                        f"value, not with {shorten(str(value))}"
                    )
                try:
                    check_values({parent: value}, base)
                except SweepError as error:
                    raise SweepError(f"{place}: {error}") from None
            elif not owner[1].contains(value) and value != get_value(base, parent):
                raise SweepError(
                    f"{place}: {parent}: it is never {shorten(repr(value))}; it is searched "
                    f"over {shorten(str(owner[1].to_tree()))}"
                )

    def probe(self, base: Config, most: int) -> Iterator[Values]:
        """Trials' values at the ends of ranges and at all choices, in all combinations; or where
        these are more than `most`, in that many drawn with a fixed seed, each value among them."""
        every = self._combinations(base, lambda _, entry: entry.probes())
        first = list(itertools.islice(every, most + 1))
        if len(first) <= most:
            yield from first
            return
        decks = {name: _deck(entry.probes(), seed) for seed, (name, entry) in enumerate(self.order)}
        for _ in range(most):
            yield next(self._combinations(base, lambda name, _: (next(decks[name]),)))


class _Given:
    """Values in place of a trial of Optuna's; see `Suggester`."""

    def __init__(self, values: Mapping[str, Scalar]) -> None:
        self._values = values

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._values[name]

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None, log: bool
    ) -> Any:
        return self._values[name]

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> Any:
        return self._values[name]


def _read(values: Values, name: str, base: Config) -> Any:
    """The value that a name has in a trial's configuration; None where that is not legal."""
    named = {own: named_value(value) for own, value in values.items()}
    try:
        return get_value(with_values(base, named, source=""), name)
    except ConfigError:
        return None


def base_value(base: Config, name: str) -> Scalar:
    """The value of a configuration as a space has it."""
    value = get_value(base, name)
    return value_name(value.model_dump(mode="json") if isinstance(value, BaseModel) else value)


def _deck(values: Sequence[Scalar], seed: int) -> Iterator[Scalar]:
    """The values repeatedly, reshuffled each time."""
    generator = random.Random(seed)
    while True:
        yield from generator.sample(values, len(values))


def _holds(entry: Entry, values: Mapping[str, Scalar], base: Config) -> bool:
    return all(
        (values[name] if name in values else get_value(base, name)) in allowed
        for name, allowed in entry.when
    )


def _searchable() -> Iterator[str]:
    """The names that a space may have: all values, and the sections that may be null."""
    yield from names_of(Config)
    for name, field in Config.model_fields.items():
        for section in sections_of(field.annotation):
            for inner, inner_field in section.model_fields.items():
                if sections_of(inner_field.annotation) and _may_be_null(inner_field.annotation):
                    yield f"{name}.{inner}"


def _may_be_null(annotation: Any) -> bool:
    return type(None) in typing.get_args(annotation)


def _check_name(name: str, place: str, known: Sequence[str]) -> None:
    reason = _refusal(name)
    if reason is not None:
        raise SweepError(f"{place}: cannot be searched: {reason}")
    if name not in known:
        raise SweepError(f"{place}: no such name in the configuration{nearest(name, known)}")


def check_values(values: Values, base: Config) -> None:
    """Check that a trial's values are legal together, and read as they are written.

    Raises:
        SweepError: one line that begins with the name.
    """
    named = {name: named_value(value) for name, value in values.items()}
    try:
        config = with_values(base, named, source="")
    except ConfigError as error:
        raise SweepError(str(error)) from None
    for name, value in values.items():
        # A list is read as the value that it stands for, and a mapping as a section.
        if (read := get_value(config, name)) != value and not is_compound(value):
            raise SweepError(
                f"{name}: {shorten(repr(value))} would be read as {shorten(repr(read))}; write "
                "it so"
            )
