"""Validation: a whole configuration, or one line with what is wrong."""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from magtkd.config.names import names_of, sections_of
from magtkd.config.reasons import nearest, reason
from magtkd.config.sections import Config
from magtkd.errors import ConfigError, and_more, shorten

__all__ = ["validate", "with_values"]

ModelT = TypeVar("ModelT", bound=BaseModel)
ConfigT = TypeVar("ConfigT", bound=Config)


def validate(model: type[ModelT], tree: Mapping[str, Any], source: str) -> ModelT:
    """Validate a tree of plain values; `source` leads the error message, where there is one.

    Raises:
        ConfigError: one line for the first thing that is wrong, and how many more there are.
    """
    try:
        return model.model_validate(dict(tree))
    except ValidationError as error:
        raise ConfigError(_at(source, _one_line(model, error))) from None


def _at(source: str, message: str) -> str:
    return f"{source}: {message}" if source else message


def _one_line(model: type[BaseModel], error: ValidationError) -> str:
    details = error.errors(include_url=False)
    first = details[0]
    place, owner = _locate(model, first["loc"])
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    where = shorten(".".join(place)) or "configuration"
    if first["type"] == "extra_forbidden":
        known = list(owner.model_fields)
        near = nearest(place[-1], known) or _elsewhere(model, place[-1])
        hint = near or f"; known are {', '.join(known)}"
        if where in {"space", "search", "scheduler", "objective"}:
            hint = "; this is a sweep file, for `magtkd sweep`"
        return f"{where}: unknown key{hint}{more}"
    return f"{where}: {reason(first, owner)}{more}"


def _elsewhere(model: type[BaseModel], last: str) -> str:
    """A hint with the names of other sections that end with this key."""
    found = [name for name in names_of(model) if name.rpartition(".")[2] == last]
    return f"; there {'is' if len(found) == 1 else 'are'} {and_more(found, 5)}" if found else ""


def _locate(
    model: type[BaseModel], location: Sequence[int | str]
) -> tuple[list[str], type[BaseModel]]:
    """The dotted name of a place in pydantic's terms, and the section that it is in: without the
    `kind` by which one of several sections was chosen, which pydantic puts between. The numbers in
    it count a list's items."""
    place: list[str] = []
    owner, choices = model, list[type[BaseModel]]()
    for part in location:
        chosen = next((one for one in choices if _kind_of(one) == part), None)
        if chosen is not None:
            owner, choices = chosen, []
            continue
        place.append(str(part))
        if isinstance(part, str) and part in owner.model_fields:
            annotation = owner.model_fields[part].annotation
            items = typing.get_args(annotation) if typing.get_origin(annotation) is tuple else ()
            sections = sections_of(items[0] if items else annotation)
            choices = sections if len(sections) > 1 else []
            owner = sections[0] if len(sections) == 1 else owner
    return place, owner


def _kind_of(section: type[BaseModel]) -> object:
    return section.model_fields["kind"].default if "kind" in section.model_fields else None


def with_values(config: ConfigT, values: Mapping[str, Any], *, source: str = "values") -> ConfigT:
    """A copy with some values replaced by dotted name, validated as a whole.

    A null section above a value is created with its defaults: `audio.distill.temperature` may be
    set where `audio.distill` was null. What was given before, and these values, count as given
    (`given_names`).

    Raises:
        ConfigError: a name that does not exist or a value that is refused.
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
                _at(source, f"{shorten(name)}: no such name{nearest(name, names_of(type(config)))}")
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
