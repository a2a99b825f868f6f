"""Why a value is refused, in this project's words instead of pydantic's."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from magtkd.errors import MAX_SHOWN, shorten

__all__ = ["nearest", "reason"]

_WANTED = {
    "greater_than_equal": ">= {ge}",
    "greater_than": "> {gt}",
    "less_than_equal": "<= {le}",
    "less_than": "< {lt}",
    "int_type": "an integer",
    "int_parsing": "an integer",
    "int_parsing_size": "an integer of fewer digits",
    "int_from_float": "an integer",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "finite",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "a string",
    "string_pattern_mismatch": "a string that matches {pattern}",
    "string_too_short": "a string of length >= {min_length}",
    "string_too_long": "a string of length <= {max_length}",
    "list_type": "a list",
    "tuple_type": "a list",
    "too_short": "of length >= {min_length}",
    "too_long": "of length <= {max_length}",
    "dict_type": "a mapping",
    "model_type": "a section of keys and values",
    "model_attributes_type": "a section of keys and values",
    "invalid_key": "a string, as every key",
    "none_required": "null",
    "byte_size": "a size in bytes, or one such as 4GB",
    "byte_size_unit": "a size in bytes, or one such as 4GB",
}
"""What a value must be, by pydantic's type of error, with the bounds that pydantic gives."""


def reason(details: ErrorDetails, section: type[BaseModel]) -> str:
    """Why a value is refused, such as `must be >= 1, got 0`, without its place.

    Args:
        details: pydantic's account of the error.
        section: the section that the value is in.
    """
    kind, value = details["type"], details["input"]
    message = details["msg"]
    if kind == "value_error":  # one of our own validators; the value is in its message
        message = message.removeprefix("Value error, ")
        return message[0].lower() + message[1:]
    got = f", got {_shown(value)}"
    if kind == "literal_error":
        choices = _choices_of(section, details["loc"][-1])
        near = nearest(value, choices) if isinstance(value, str) else ""
        return f"must be one of {', '.join(map(repr, choices))}{got}{near}"
    if kind in _WANTED:
        bounds = {name: _plain(bound) for name, bound in details.get("ctx", {}).items()}
        return f"must be {_WANTED[kind].format(**bounds)}{got}"
    return f"{message[0].lower()}{message[1:]}{got}"


def nearest(name: str, known: Iterable[str], least: float = 0.5) -> str:
    """`; did you mean 'x'?` for the nearest known name, or nothing where none is near: `least` is
    the likeness (difflib's ratio, from 0 to 1) that it needs."""
    # No known name is as long as some values are, and the comparison takes time by their lengths.
    found = difflib.get_close_matches(name[:MAX_SHOWN], list(known), n=1, cutoff=least)
    return f"; did you mean {shorten(found[0])!r}?" if found else ""


def _choices_of(section: type[BaseModel], name: int | str) -> tuple[str, ...]:
    """The values that a field of `Literal` type, or of an optional one, may have."""
    return _literals(section.model_fields[str(name)].annotation)


def _literals(annotation: Any) -> tuple[str, ...]:
    if typing.get_origin(annotation) is typing.Literal:
        return typing.get_args(annotation)
    return tuple(choice for inner in typing.get_args(annotation) for choice in _literals(inner))


def _plain(bound: Any) -> Any:
    """A bound without a trailing `.0`."""
    return f"{bound:g}" if isinstance(bound, float) else bound


def _shown(value: Any) -> str:
    """A value as in YAML where that differs from Python's."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return shorten(repr(value))
