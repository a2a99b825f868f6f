"""What is said when a stage does not fit into memory."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

from magtkd.errors import StageMemoryError

__all__ = ["memory_named"]

SIZES = ("batch_size", "max_length", "prompt_length", "hidden_dim", "depth", "model", "encoder")
# What torch, numpy, the CUDA libraries and Python say.
_SAYS = re.compile(r"out of memory|can't allocate memory|unable to allocate|bad_alloc", re.I)


@contextlib.contextmanager
def memory_named(stage: str, section: Any) -> Iterator[None]:
    """Name the stage and its sizes where the block runs out of memory.

    Args:
        stage: the stage's name.
        section: its configuration.

    Raises:
        StageMemoryError: in place of whatever was raised for want of memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not _SAYS.search(str(error)):
            raise
        said = " ".join(str(error).split()) or "no memory is left"
        sizes = ", ".join(
            f"{name} {getattr(section, name)}" for name in SIZES if hasattr(section, name)
        )
        raise StageMemoryError(
            f"{stage}: out of memory with {sizes}: {said[:300]}; lower {stage}.batch_size, or "
            f"give it a larger device with resources.{stage}"
        ) from error
