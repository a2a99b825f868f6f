"""What a pickle of features may make, out of checked arguments: arrays, tensors, containers.

numpy's and torch's own functions for this trust what they are given: `dtype.__setstate__` takes
flags that make numpy read bytes as pointers, and `torch.storage._load_from_bytes` unpickles without
limits. So none of them is called with anything from the file. Where they would be, stand-ins are
made, which `resolve` turns into the real thing once the whole pickle is read.
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

__all__ = ["ADMITTED", "Refused", "resolve"]

_DTYPE = re.compile(r"[?bBhHiIlLqQefdgFDG]|[biufc]\d{1,2}|[SU]\d{1,9}|O[48]?")


class Refused(Exception):  # noqa: N818 (its text is what was refused)
    """Something in a pickle that features have no use for; the text names it."""


def _check(is_right: bool, what: str) -> None:
    if not is_right:
        raise Refused(what)


def _text(value: Any) -> str:
    """Text that Python 2 may have written as bytes."""
    if type(value) is bytes:
        return value.decode("latin1")
    _check(type(value) is str, "a name that is not text")
    return str(value)


# --- stand-ins --------------------------------------------------------------------------------
# A pickle can give any object on its stack a new state. Stand-ins have no attributes to overwrite,
# decide themselves what a state means, and are no keys of a dict.


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


class _Dtype(_Inert):
    __slots__ = ("value",)

    def __init__(self, code: Any, *_: Any) -> None:
        name = _text(code)
        _check(_DTYPE.fullmatch(name) is not None, f"numpy's dtype {name[:40]!r}")
        self.value = np.dtype(name)

    def __setstate__(self, state: Any) -> None:
        fields = state[2:5] if type(state) is tuple and len(state) >= 8 else ()
        _check(fields == (None, None, None), "a dtype with fields")
        order = _text(state[1])
        _check(order in {"<", ">", "=", "|"}, "a dtype's byte order")
        if order in {"<", ">"}:
            self.value = self.value.newbyteorder(order)  # type: ignore[arg-type]


class _Array(_Inert):
    """`value` of numbers or strings, or the `items` of an array of objects, in C order."""

    __slots__ = ("items", "shape", "value")

    def __init__(self) -> None:
        self.value: npt.NDArray[Any] = np.empty(0, np.int8)
        self.items: list[Any] | None = None
        self.shape: tuple[int, ...] = (0,)

    def __setstate__(self, state: Any) -> None:
        # Before its version 1.0, numpy wrote no version in front.
        _check(type(state) is tuple and len(state) in {4, 5}, "an array's state")
        shape, dtype, is_fortran, content = state[-4:]
        self.fill(content, dtype, shape, "F" if is_fortran else "C")

    def fill(self, content: Any, dtype: Any, shape: Any, order: str) -> None:
        _check(isinstance(dtype, _Dtype), "an array's dtype")
        _check_counts(shape, "an array's shape")
        if dtype.value.hasobject:
            is_whole = type(content) is list and len(content) == math.prod(shape)
            _check(is_whole, "an array of objects that are not there")
            self.items, self.shape = content, shape
            return
        flat = _flat(content, dtype.value, math.prod(shape))
        self.value = flat.reshape(shape, order="F" if order == "F" else "C").copy(order="K")
        self.items = None


class _Storage(_Inert):
    __slots__ = ("value",)

    def __init__(self, content: Any) -> None:
        import torch

        _check(type(content) is bytes, "a storage's content")
        self.value = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        _check(isinstance(self.value, torch.storage.TypedStorage), "a storage that is none")


class _Tensor(_Inert):
    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


# --- arrays and tensors -----------------------------------------------------------------------


def _check_counts(counts: Any, what: str) -> None:
    right = type(counts) is tuple and all(type(count) is int and count >= 0 for count in counts)
    _check(right, what)


def _flat(content: Any, dtype: np.dtype[Any], count: int) -> npt.NDArray[Any]:
    raw = content.encode("latin1") if type(content) is str else content
    _check(type(raw) in {bytes, bytearray}, "an array's content")
    _check(dtype.itemsize > 0 and len(raw) == count * dtype.itemsize, "an array's shape")
    return np.frombuffer(raw, dtype)


def _reconstruct(kind: Any, *_: Any) -> _Array:
    _check(kind is _NDARRAY, "an array of another class")
    return _Array()


def _from_buffer(content: Any, dtype: Any, shape: Any, order: Any, axes: Any = None) -> _Array:
    _check(order in {"C", "F", "K"}, "an array's order")
    array = _Array()
    array.fill(content, dtype, shape, order)
    if axes is not None:
        array.value = array.value.transpose(axes)
    return array


def _scalar(dtype: Any, content: Any = b"") -> Any:
    _check(isinstance(dtype, _Dtype) and not dtype.value.hasobject, "a scalar's dtype")
    if not dtype.value.itemsize:
        return dtype.value.type()  # the empty string
    return _flat(content, dtype.value, 1)[0]


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> _Tensor:
    import torch

    _check(isinstance(storage, _Storage), "a tensor's storage")
    for counts in (size, stride, (offset,)):
        _check_counts(counts, "a tensor's shape")
    values = torch.empty(0, dtype=storage.value.dtype).set_(storage.value._untyped_storage)
    _check(math.prod(size) <= values.numel(), "a tensor that is larger than its storage")
    return _Tensor(values.as_strided(size, stride, offset))


def _rebuild_parameter(tensor: Any, *_: Any) -> _Tensor:
    _check(isinstance(tensor, _Tensor), "a parameter's tensor")
    return _Tensor(tensor.value)


# --- plain containers -------------------------------------------------------------------------


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """How Python 3 writes bytes for Python 2."""
    _check(type(text) is str and encoding in {"latin1", "latin-1"}, "another encoding than latin1")
    return bytes(text.encode("latin1"))


def _plain(kind: type) -> Admitted:
    """A type as a dict's default, or its empty value."""

    def make(*arguments: Any) -> Any:
        _check(not arguments, f"{kind.__name__} of something")
        return kind()

    return Admitted(make, kind)


def _set_of(kind: type) -> Admitted:
    def make(items: Any = ()) -> Any:
        _check(type(items) in {list, tuple}, f"{kind.__name__} of something else than a list")
        return kind(items)

    return Admitted(make, kind)


def _bytes_of(kind: type) -> Admitted:
    def make(content: Any = b"", *encoding: Any) -> Any:
        content = _encode(content, *encoding) if encoding else content
        _check(type(content) is bytes, f"{kind.__name__} of something else than bytes")
        return kind(content)

    return Admitted(make)


def _ordered_dict(items: Any = ()) -> OrderedDict[Any, Any]:
    _check(type(items) in {list, tuple}, "an OrderedDict of something else than a list")
    return OrderedDict((key, value) for key, value in items)


def _default_dict(default: Any = None) -> defaultdict[Any, Any]:
    kind = default.kind if isinstance(default, Admitted) else None
    _check(default is None or kind is not None, "a defaultdict with another default than a type")
    return defaultdict(kind)


_NDARRAY = Admitted(lambda *_: _check(False, "numpy.ndarray, called"))
_BUILTINS = {
    **{kind.__name__: _plain(kind) for kind in (bool, dict, float, int, list, str, tuple)},
    **{kind.__name__: _set_of(kind) for kind in (frozenset, set)},
    **{kind.__name__: _bytes_of(kind) for kind in (bytearray, bytes)},
}
_MULTIARRAY = {"_reconstruct": Admitted(_reconstruct), "scalar": Admitted(_scalar)}
_BY_MODULE = {
    "__builtin__": _BUILTINS,
    "builtins": _BUILTINS,
    "_codecs": {"encode": Admitted(_encode)},
    "collections": {
        "OrderedDict": Admitted(_ordered_dict),
        "defaultdict": Admitted(_default_dict),
    },
    "numpy": {"dtype": Admitted(_Dtype), "ndarray": _NDARRAY},
    "numpy.core.multiarray": _MULTIARRAY,
    "numpy._core.multiarray": _MULTIARRAY,
    "numpy.core.numeric": {"_frombuffer": Admitted(_from_buffer)},
    "numpy._core.numeric": {"_frombuffer": Admitted(_from_buffer)},
    "torch._utils": {
        "_rebuild_parameter": Admitted(_rebuild_parameter),
        "_rebuild_tensor_v2": Admitted(_rebuild_tensor),
    },
    "torch.storage": {"_load_from_bytes": Admitted(_Storage)},
}
ADMITTED = {
    (module, name): admitted
    for module, names in _BY_MODULE.items()
    for name, admitted in names.items()
}
"""What a pickle may name, by module and name; nothing is looked up anywhere else."""


# --- from stand-ins to values -----------------------------------------------------------------

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
    if isinstance(value, _Array):
        return _resolve_array(value, known)
    if isinstance(value, _Dtype | _Tensor):
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
        _check(not getattr(value, "__dict__", None), "a dict with attributes")
        default = getattr(value, "default_factory", None)
        _check(default is None or isinstance(default, type), "a defaultdict's default")
        for key, item in list(value.items()):
            value[key] = _resolve(item, known)
    else:
        raise Refused("a function or a type as a value")
    return value


def _resolve_array(array: _Array, known: dict[int, tuple[Any, Any]]) -> npt.NDArray[Any]:
    if array.items is None:
        known[id(array)] = (array, array.value)
        return array.value
    flat = np.empty(len(array.items), object)
    shaped = flat.reshape(array.shape)
    known[id(array)] = (array, shaped)
    for index, item in enumerate(array.items):
        flat[index] = _resolve(item, known)
    return shaped
