"""Feature files that the field distributes as pickles, read without running their code.

A pickle is a program: it names functions and calls them. COSMIC's and MMGCN's tuples of dicts and
MAGTKD's dictionary of tensors need a dozen names, and only these are known here, each with a
function of our own behind it (`magtkd.data.formats.pickled_values`). All that is left to a hostile
file is to ask for more memory than there is.
"""

from __future__ import annotations

import copyreg
import io
import pickle
import re
from pathlib import Path
from typing import Any

from magtkd.data.formats.pickle_stand_ins import Refused, resolve
from magtkd.data.formats.pickled_values import ADMITTED
from magtkd.errors import DataError

__all__ = ["read_pickle"]

# A zip file, and the number that torch wrote before it wrote zip files.
_TORCH_STARTS = (b"PK\x03\x04", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.")
_TORCH_REFUSED = re.compile(r"(?:Unsupported (?:global|class)[^\n]*?|GLOBAL )(\w+(?:\.\w+)+)")


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return ADMITTED[module, name]
        except KeyError:
            raise Refused(f"{module}.{name}") from None

    def persistent_load(self, pid: Any) -> Any:
        raise Refused("something outside the file")


def read_pickle(path: str | Path, encoding: str = "latin1") -> Any:
    """What a pickle of features holds: numpy arrays, tensors (on the CPU, without gradients) and
    plain containers.

    Args:
        path: a file of `pickle.dump`, by Python 2 or 3, or of `torch.save`.
        encoding: how to read Python 2's strings: `latin1`, `utf-8`, or `bytes`. Arrays of Python 2
            need `latin1` or `bytes`.

    Raises:
        DataError: the file cannot be read, is damaged, or holds anything else; nothing of it has
            been run.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise DataError(
            f"{path}: cannot read it: {error.strerror}; give a file of features"
        ) from None
    if not content:
        raise DataError(f"{path}: the file is empty; fetch it again")
    is_torch = content.startswith(_TORCH_STARTS)
    load = _load_torch if is_torch else _load
    try:
        return load(content, encoding)
    except Refused as refused:
        what = ascii(str(refused))[1:-1][:200]
    except Exception as error:  # a damaged pickle raises whatever its last instruction raises
        raise DataError(
            f"{path}: not a whole pickle ({type(error).__name__}); fetch the file again"
        ) from None
    kinds = "tensors" if is_torch else "arrays, tensors"
    raise DataError(
        f"{path}: refused: it asks for {what}, and only {kinds} and plain containers are read; "
        "if you trust the file, convert it yourself"
    )


def _load(content: bytes, encoding: str) -> Any:
    # A cached extension would be handed out without asking `find_class`.
    copyreg.clear_extension_cache()
    return resolve(_Unpickler(io.BytesIO(content), encoding=encoding).load())


def _load_torch(content: bytes, encoding: str) -> Any:
    import torch

    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = _TORCH_REFUSED.search(str(error))
        if found is None:
            raise
        raise Refused(found[1]) from None
