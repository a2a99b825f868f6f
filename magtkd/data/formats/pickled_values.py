"""What a pickle of features may make, out of checked arguments: arrays, tensors, containers.

numpy's and torch's own functions for this trust what they are given: `dtype.__setstate__` takes
flags that make numpy read bytes as pointers, and `torch.storage._load_from_bytes` unpickles without
limits. So none of them is called with anything from the file: what is made are stand-ins
(`magtkd.data.formats.pickle_stand_ins`).
"""

from __future__ import annotations

import math
from collections import OrderedDict, defaultdict
from typing import Any

from magtkd.data.formats.pickle_stand_ins import (
    Admitted,
    Array,
    Dtype,
    Storage,
    Tensor,
    check,
    check_counts,
    flat_array,
)

__all__ = ["ADMITTED"]


# --- arrays and tensors -----------------------------------------------------------------------


def _reconstruct(kind: Any, *_: Any) -> Array:
    check(kind is _NDARRAY, "an array of another class")
    return Array()


def _from_buffer(content: Any, dtype: Any, shape: Any, order: Any, axes: Any = None) -> Array:
    check(order in {"C", "F", "K"}, "an array's order")
    array = Array()
    array.fill(content, dtype, shape, order)
    if axes is not None:
        array.value = array.value.transpose(axes)
    return array


def _scalar(dtype: Any, content: Any = b"") -> Any:
    check(isinstance(dtype, Dtype) and not dtype.value.hasobject, "a scalar's dtype")
    if not dtype.value.itemsize:
        return dtype.value.type()  # the empty string
    return flat_array(content, dtype.value, 1)[0]


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
    import torch

    check(isinstance(storage, Storage), "a tensor's storage")
    for counts in (size, stride, (offset,)):
        check_counts(counts, "a tensor's shape")
    values = torch.empty(0, dtype=storage.value.dtype).set_(storage.value._untyped_storage)
    check(math.prod(size) <= values.numel(), "a tensor that is larger than its storage")
    return Tensor(values.as_strided(size, stride, offset))


def _rebuild_parameter(tensor: Any, *_: Any) -> Tensor:
    check(isinstance(tensor, Tensor), "a parameter's tensor")
    return Tensor(tensor.value)


# --- plain containers -------------------------------------------------------------------------


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """How Python 3 writes bytes for Python 2."""
    check(type(text) is str and encoding in {"latin1", "latin-1"}, "another encoding than latin1")
    return bytes(text.encode("latin1"))


def _plain(kind: type) -> Admitted:
    """A type as a dict's default, or its empty value."""

    def make(*arguments: Any) -> Any:
        check(not arguments, f"{kind.__name__} of something")
        return kind()

    return Admitted(make, kind)


def _set_of(kind: type) -> Admitted:
    def make(items: Any = ()) -> Any:
        check(type(items) in {list, tuple}, f"{kind.__name__} of something else than a list")
        return kind(items)

    return Admitted(make, kind)


def _bytes_of(kind: type) -> Admitted:
    def make(content: Any = b"", *encoding: Any) -> Any:
        content = _encode(content, *encoding) if encoding else content
        check(type(content) is bytes, f"{kind.__name__} of something else than bytes")
        return kind(content)

    return Admitted(make)


def _ordered_dict(items: Any = ()) -> OrderedDict[Any, Any]:
    check(type(items) in {list, tuple}, "an OrderedDict of something else than a list")
    return OrderedDict((key, value) for key, value in items)


def _default_dict(default: Any = None) -> defaultdict[Any, Any]:
    kind = default.kind if isinstance(default, Admitted) else None
    check(default is None or kind is not None, "a defaultdict with another default than a type")
    return defaultdict(kind)


_NDARRAY = Admitted(lambda *_: check(False, "numpy.ndarray, called"))
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
    "numpy": {"dtype": Admitted(Dtype), "ndarray": _NDARRAY},
    "numpy.core.multiarray": _MULTIARRAY,
    "numpy._core.multiarray": _MULTIARRAY,
    "numpy.core.numeric": {"_frombuffer": Admitted(_from_buffer)},
    "numpy._core.numeric": {"_frombuffer": Admitted(_from_buffer)},
    "torch._utils": {
        "_rebuild_parameter": Admitted(_rebuild_parameter),
        "_rebuild_tensor_v2": Admitted(_rebuild_tensor),
    },
    "torch.storage": {"_load_from_bytes": Admitted(Storage)},
}
ADMITTED = {
    (module, name): admitted
    for module, names in _BY_MODULE.items()
    for name, admitted in names.items()
}
"""What a pickle may name, by module and name; nothing is looked up anywhere else."""
