"""Dotted names of the values: which there are, and the value of one."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import BaseModel

from magtkd.config.sections import Config

__all__ = ["get_value", "given_names", "names_of", "section_of", "sections_of"]


def sections_of(annotation: Any) -> list[type[BaseModel]]:
    """The model classes inside an annotation such as `DistillConfig | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, Annotated):
        every = (sections_of(inner) for inner in typing.get_args(annotation))
        return [section for found in every for section in found]
    return []


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The first of `sections_of`, if there is one."""
    return next(iter(sections_of(annotation)), None)


def names_of(model: type[BaseModel] = Config, prefix: str = "") -> Iterator[str]:
    """All dotted names of a configuration's values, sections themselves left out."""
    for name, field in model.model_fields.items():
        section = section_of(field.annotation)
        if section is None:
            yield prefix + name
        else:
            yield from names_of(section, f"{prefix}{name}.")


def given_names(config: BaseModel) -> set[str]:
    """The dotted names of the values that were given, in a file or by `with_values`, also where
    they equal the default; without those that a recipe set."""
    found: set[str] = set()
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, BaseModel):
            found |= {f"{name}.{inner}" for inner in given_names(value)}
        elif name in config.model_fields_set:
            found.add(name)
    return found


def get_value(config: BaseModel, name: str) -> Any:
    """The value under a dotted name; None where a section above it is null."""
    value: Any = config
    for part in name.split("."):
        if value is None:
            return None
        value = getattr(value, part)
    return value
