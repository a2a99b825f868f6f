"""Validation: a whole configuration, or one line that says what is wrong with it."""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from magtkd.config.names import names_of, nearest, section_of
from magtkd.config.sections import Config
from magtkd.errors import ConfigError

__all__ = ["validate", "with_values"]

ConfigT = TypeVar("ConfigT", bound=Config)


def validate(model: type[ConfigT], tree: Mapping[str, Any], source: str) -> ConfigT:
    """Validate a tree of plain values; `source` leads the error message.

    Raises:
        ConfigError: one line for the first thing that is wrong, and how many more there are.
    """
    try:
        return model.model_validate(dict(tree))
    except ValidationError as error:
        raise ConfigError(f"{source}: {_one_line(model, error)}") from None


def _one_line(model: type[BaseModel], error: ValidationError) -> str:
    details = error.errors(include_url=False)
    first = details[0]
    place = [str(part) for part in first["loc"]]
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    if first["type"] == "extra_forbidden":
        known = _keys_at(model, first["loc"][:-1])
        hint = nearest(place[-1], known) or f"; known are {', '.join(known)}"
        if place[0] in {"space", "search", "scheduler", "objective"} and len(place) == 1:
            hint = "; this is a sweep file, for `magtkd sweep`"
        return f"{'.'.join(place)}: unknown key{hint}{more}"
    message = first["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    where = ".".join(place) or "configuration"
    given = first["input"]
    if first["type"] == "value_error":
        return f"{where}: {message}{more}"
    return f"{where}: {given!r} is not legal: {message}{more}"


def _keys_at(model: type[BaseModel], place: Sequence[int | str]) -> list[str]:
    """The keys of the section at a place; the numbers in it count a list's items."""
    owner = model
    for part in place:
        if isinstance(part, str):
            annotation = owner.model_fields[part].annotation
            items = typing.get_args(annotation) if typing.get_origin(annotation) is tuple else ()
            owner = section_of(items[0] if items else annotation) or owner
    return list(owner.model_fields)


def with_values(config: ConfigT, values: Mapping[str, Any], *, source: str = "values") -> ConfigT:
    """A copy with some values replaced by dotted name, validated as a whole.

    A null section on the way is created with its defaults, so `audio.distill.temperature` may be
    set where `audio.distill` was null. What was given before, and these values, count as given
    (`given_names`).

    Raises:
        ConfigError: a name that does not exist or a value that is not legal.
    """
    tree = config.model_dump()
    for name, value in values.items():
        *parents, last = name.split(".")
        node: Any = tree
        for parent in parents:
            if not isinstance(node, dict):
                break
            if node.get(parent) is None:
                node[parent] = {}
            node = node[parent]
        if not isinstance(node, dict):
            raise ConfigError(
                f"{source}: {name}: no such name{nearest(name, names_of(type(config)))}"
            )
        node[last] = value
    changed = validate(type(config), tree, source)
    names: dict[str, set[str]] = {}
    for name in values:
        section, _, last = name.rpartition(".")
        names.setdefault(section, set()).add(last)
    _keep_given(changed, config, names)
    return changed


def _keep_given(
    section: BaseModel, before: BaseModel, names: Mapping[str, set[str]], place: str = ""
) -> None:
    """Let only what was given before, and the names by section, count as given: in the tree of
    plain values all were."""
    given = before.model_fields_set | names.get(place, set())
    for name in type(section).model_fields:
        value, former = getattr(section, name), getattr(before, name)
        if not isinstance(value, BaseModel):
            if name not in given:
                section.model_fields_set.discard(name)
        elif isinstance(former, BaseModel) and name not in names.get(place, ()):
            _keep_given(value, former, names, f"{place}.{name}" if place else name)
