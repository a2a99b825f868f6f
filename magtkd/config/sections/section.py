"""What all sections share: the ranges of their fields, and which fields are read."""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
import textwrap
import typing
from collections.abc import Collection, Iterator, Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from magtkd.reading import EVERYTHING, Choice, Given, Reads, Why

__all__ = ["Positive", "Rate", "Section", "Temperature", "Weight", "Width", "without"]

Positive = Annotated[int, Field(ge=1, lt=2**31)]
Width = Annotated[int, Field(ge=1, le=2**16)]
"""Of features: the square of the largest, in float32, is all the memory of a machine."""
Rate = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Temperature = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _describe(schema: dict[str, Any], model: type[Section]) -> None:
    """Add to a model's JSON schema what its fields are, and which variants read each, where not all
    do."""
    described = model.descriptions()
    for name, field in schema.get("properties", {}).items():
        readers = [reader for choice in model.CHOICES for reader in choice.readers(name)]
        read_by = f"Read by: {', '.join(readers)}." if readers else ""
        if text := f"{described.get(name, '')} {read_by}".strip():
            field["description"] = text


class Section(BaseModel):
    """A frozen section that refuses keys it does not know.

    `CHOICES` and `CONDITIONS` declare which fields are not read under which values; all others are
    always read.
    """

    model_config = ConfigDict(
        # Most processes of a sweep only pass sections on.
        defer_build=True,
        frozen=True,
        extra="forbid",
        validate_default=True,
        json_schema_extra=_describe,
    )

    CHOICES: ClassVar[tuple[Choice, ...]] = ()
    """The fields that choose a variant, with what each variant reads."""
    CONDITIONS: ClassVar[Reads] = {}
    """Further conditions under which a field is read."""

    @model_validator(mode="before")
    @classmethod
    def _no_truth_as_number(cls, tree: Any) -> Any:
        """Pydantic reads true as 1, where a number is wanted."""
        if not isinstance(tree, Mapping):
            return tree
        refused = {
            name: _without_truth(value)
            for name, value in tree.items()
            if name in cls.model_fields and _has_truth(value) and _takes_numbers_only(cls, name)
        }
        return {**tree, **refused} if refused else tree

    @classmethod
    @functools.cache
    def descriptions(cls) -> dict[str, str]:
        """The docstrings of the fields.

        Pydantic can read them itself, but does so for each class when it is made: a tenth of a
        second for each process of a sweep, none of which shows them.
        """
        found: dict[str, str] = {}
        for owner in reversed(cls.__mro__):
            if not issubclass(owner, BaseModel) or owner is BaseModel:
                continue
            try:
                source = inspect.getsource(owner)
            except OSError:  # an installation of compiled files alone
                continue
            (tree,) = ast.parse(textwrap.dedent(source)).body
            assert isinstance(tree, ast.ClassDef)
            for pair in itertools.pairwise(tree.body):
                match pair:
                    case (
                        ast.AnnAssign(target=ast.Name(id=name)),
                        ast.Expr(value=ast.Constant(value=str(docstring))),
                    ):
                        found[name] = inspect.cleandoc(docstring)
        return found

    def unread(self, given: Given = EVERYTHING) -> dict[str, str]:
        """The dotted names within this section that are not read, and why; a section in it that is
        not read counts as a name too."""
        found: dict[str, str] = {}
        conditions = _conditions(type(self))
        for name in type(self).model_fields:
            value = getattr(self, name)
            reasons = (one(self, given) for one in conditions[name]) if name in conditions else ()
            why = next((reason for reason in reasons if reason is not None), None)
            if why is not None:
                found |= {name: why} | {f"{name}.{inner}": why for inner in _leaves(value)}
            elif isinstance(value, Section):
                found |= {f"{name}.{inner}": why for inner, why in value.unread(given).items()}
        return found

    def keyed(self, given: Given = EVERYTHING) -> dict[str, Any]:
        """The section as plain values, without what is not read."""
        return without(self.model_dump(mode="json"), self.unread(given))


class _Truth:
    """True or false where a number is wanted: nothing that pydantic could read as one."""

    def __init__(self, value: bool) -> None:
        self._value = value

    def __repr__(self) -> str:
        return str(self._value).lower()


def _has_truth(value: Any) -> bool:
    values = value.values() if isinstance(value, Mapping) else (value,)
    return any(isinstance(one, bool) for one in values)


def _without_truth(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_truth(one) for name, one in value.items()}
    return _Truth(value) if isinstance(value, bool) else value


@functools.cache
def _takes_numbers_only(model: type[Section], name: str) -> bool:
    kinds = set(_inside(model.model_fields[name].annotation))
    return bool(kinds & {int, float}) and not kinds & {bool, Any}


def _inside(annotation: Any) -> Iterator[Any]:
    """The types inside an annotation."""
    inner = typing.get_args(annotation)
    if not inner or typing.get_origin(annotation) is typing.Literal:
        yield annotation
    else:
        for one in inner:
            yield from _inside(one)


@functools.cache
def _conditions(model: type[Section]) -> dict[str, list[Why]]:
    """The conditions under which each field is read; a field that is always read has none."""
    found: dict[str, list[Why]] = {name: [why] for name, why in model.CONDITIONS.items()}
    for choice in model.CHOICES:
        for name in model.model_fields:
            if choice.readers(name):
                found.setdefault(name, []).append(functools.partial(choice.why_unread, name))
    return found


def _leaves(value: Any) -> list[str]:
    """The dotted names within a value, where it is a section."""
    if not isinstance(value, Section):
        return []
    return [
        f"{name}.{inner}" if inner else name
        for name in type(value).model_fields
        for inner in _leaves(getattr(value, name)) or [""]
    ]


def without(tree: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    """A tree of plain values without some dotted names."""
    kept = {name: value for name, value in tree.items() if name not in names}
    for name, value in kept.items():
        start = f"{name}."
        if isinstance(value, dict):
            inner = [other.removeprefix(start) for other in names if other.startswith(start)]
            kept[name] = without(value, inner)
    return kept
