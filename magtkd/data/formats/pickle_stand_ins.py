"""Stand-ins for what a pickle of features makes, and the values that replace them.

A pickle can give any object on its stack a new state. Stand-ins have no attributes to overwrite,
decide themselves what a state means, and are no keys of a dict. `resolve` replaces them once the
whole pickle is read.
"""

from __future__ import annotations

import io
import math
import re
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "Admitted",
    "Array",
    "Dtype",
    "Refused",
    "Storage",
    "Tensor",
    "as_text",
    "check",
    "check_counts",
    "flat_array",
    "resolve",
]

_DTYPE = re.compile(r"[?bBhHiIlLqQefdgFDG]|[biufc]\d{1,2}|[SU]\d{1,9}|O[48]?")


class Refused(Exception):  # noqa: N818 (its text is what was refused)
    """Something in a pickle that features have no use for; the text names it."""


def check(is_right: bool, what: str) -> None:
    """Raise Refused, which names `what`, unless it is right."""
    if not is_right:
        raise Refused(what)


def as_text(value: Any) -> str:
    """Text that Python 2 may have written as bytes."""
    if type(value) is bytes:
        return value.decode("latin1")
    check(type(value) is str, "a name that is not text")
    return str(value)


class _Inert:
    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]

    def __setstate__(self, state: Any) -> None:
        raise Refused("a state for something that has none")


class Admitted(_Inert):
    """A name that a pickle may use: callable, and a type where it may be a dict's default."""

    __slots__ = ("_make", "kind")

    def __init__(self, make: Callable[..., Any], kind: type | None = None) -> None:
        self._make, self.kind = make, kind

    def __call__(self, *arguments: Any) -> Any:
        return self._make(*arguments)


class Dtype(_Inert):
    """numpy's `value`, of numbers, strings or objects; without fields."""

    __slots__ = ("value",)

    def __init__(self, code: Any, *_: Any) -> None:
        name = as_text(code)
        check(_DTYPE.fullmatch(name) is not None, f"numpy's dtype {name[:40]!r}")
        self.value = np.dtype(name)

    def __setstate__(self, state: Any) -> None:
        fields = state[2:5] if type(state) is tuple and len(state) >= 8 else ()
        check(fields == (None, None, None), "a dtype with fields")
        order = as_text(state[1])
        check(order in {"<", ">", "=", "|"}, "a dtype's byte order")
        if order in {"<", ">"}:
            self.value = self.value.newbyteorder(order)  # type: ignore[arg-type]


class Array(_Inert):
    """`value` of numbers or strings, or the `items` of an array of objects, in C order."""

    __slots__ = ("items", "shape", "value")

    def __init__(self) -> None:
        self.value: npt.NDArray[Any] = np.empty(0, np.int8)
        self.items: list[Any] | None = None
        self.shape: tuple[int, ...] = (0,)

    def __setstate__(self, state: Any) -> None:
        # Before its version 1.0, numpy wrote no version in front.
        check(type(state) is tuple and len(state) in {4, 5}, "an array's state")
        shape, dtype, is_fortran, content = state[-4:]
        self.fill(content, dtype, shape, "F" if is_fortran else "C")

    def fill(self, content: Any, dtype: Any, shape: Any, order: str) -> None:
        """Take the content of an array, once its dtype and shape are checked."""
        check(isinstance(dtype, Dtype), "an array's dtype")
        check_counts(shape, "an array's shape")
        if dtype.value.hasobject:
            is_whole = type(content) is list and len(content) == math.prod(shape)
            check(is_whole, "an array of objects that are not there")
            self.items, self.shape = content, shape
            return
        numbers = flat_array(content, dtype.value, math.prod(shape))
        self.value = numbers.reshape(shape, order="F" if order == "F" else "C").copy(order="K")
        self.items = None


class Storage(_Inert):
    """torch's storage of a tensor's `value`s, on the CPU."""

    __slots__ = ("value",)

    def __init__(self, content: Any) -> None:
        import torch

        check(type(content) is bytes, "a storage's content")
        self.value = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        check(isinstance(self.value, torch.storage.TypedStorage), "a storage that is none")


class Tensor(_Inert):
    """torch's tensor, as `value`."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


def check_counts(counts: Any, what: str) -> None:
    """Raise Refused unless these are a tuple of whole numbers from 0."""
    right = type(counts) is tuple and all(type(count) is int and count >= 0 for count in counts)
    check(right, what)


def flat_array(content: Any, dtype: np.dtype[Any], count: int) -> npt.NDArray[Any]:
    """[count] numbers or strings of a dtype, a view of their bytes."""
    raw = content.encode("latin1") if type(content) is str else content
    check(type(raw) in {bytes, bytearray}, "an array's content")
    check(dtype.itemsize > 0 and len(raw) == count * dtype.itemsize, "an array's shape")
    return np.frombuffer(raw, dtype)


_ATOMS = (type(None), bool, int, float, str, bytes, bytearray, set, frozenset)


def resolve(value: Any) -> Any:
    """A loaded value with its stand-ins replaced by arrays and tensors; containers that are shared,
    or contain themselves, stay so.

    Raises:
        Refused: something that is neither an array, a tensor nor a plain container.
    """
    # What was resolved is kept beside its result: a number of an object that is gone is used again.
    return _resolve(value, {})


def _resolve(value: Any, known: dict[int, tuple[Any, Any]]) -> Any:
    if type(value) in _ATOMS or isinstance(value, np.generic):
        return value
    if id(value) in known:
        return known[id(value)][1]
    if isinstance(value, Array):
        return _resolve_array(value, known)
    if isinstance(value, Dtype | Tensor):
        return value.value
    if type(value) is tuple:
        resolved = tuple(_resolve(item, known) for item in value)
        # An equal tuple is kept, since others may hold it as the key of a dict.
        same = all(new is old for new, old in zip(resolved, value, strict=True))
        return known.setdefault(id(value), (value, value if same else resolved))[1]
    known[id(value)] = (value, value)
    if type(value) is list:
        value[:] = [_resolve(item, known) for item in value]
    elif type(value) in {dict, OrderedDict, defaultdict}:
        check(not getattr(value, "__dict__", None), "a dict with attributes")
        default = getattr(value, "default_factory", None)
        check(default is None or isinstance(default, type), "a defaultdict's default")
        for key, item in list(value.items()):
            value[key] = _resolve(item, known)
    else:
        raise Refused("a function or a type as a value")
    return value


def _resolve_array(array: Array, known: dict[int, tuple[Any, Any]]) -> npt.NDArray[Any]:
    if array.items is None:
        known[id(array)] = (array, array.value)
        return array.value
    flat = np.empty(len(array.items), object)
    shaped = flat.reshape(array.shape)
    known[id(array)] = (array, shaped)
    for index, item in enumerate(array.items):
        flat[index] = _resolve(item, known)
    return shaped
