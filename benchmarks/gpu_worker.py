"""The process in which `gpu.py`'s checks run: what breaks there, or hangs, breaks nothing else."""

from __future__ import annotations

import contextlib
import gc
import importlib
import tempfile
import time
import traceback
import warnings
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from gpu_rows import FAILED, Row

__all__ = ["BROKEN", "DONE", "Case", "failure", "serve"]

DONE, BROKEN = "done", "broken"
"""What follows a case's rows: the process takes the next, or it ends."""


@dataclass(frozen=True)
class Case:
    """A function that yields rows: `module.function(folder, **arguments)`, and the seconds that it
    may take on a GPU."""

    check: str
    name: str
    function: str
    arguments: dict[str, Any] = field(default_factory=dict)
    limit: float = 60.0


def failure(case: Case, reason: str) -> Row:
    """The row of a case that ended before its rows were all there."""
    return Row(case.check, case.name, "runs", (reason.splitlines() or [""])[0][:200], FAILED)


def serve(pipe: Connection) -> None:
    """Describe the device, then answer each case with its rows and `DONE`. An error ends the
    process, since CUDA may be of no use after it: `BROKEN`."""
    warnings.simplefilter("ignore")
    pipe.send(_describe())
    while True:
        try:
            case: Case = pipe.recv()
        except EOFError:
            return
        try:
            with tempfile.TemporaryDirectory(prefix="magtkd-gpu-") as folder:
                _fresh()
                module, _, name = case.function.partition(".")
                for one in getattr(importlib.import_module(module), name)(
                    Path(folder), **case.arguments
                ):
                    pipe.send(one)
        except Exception as error:
            traceback.print_exc()
            pipe.send(failure(case, f"{type(error).__name__}: {error}"))
            pipe.send(BROKEN)
            return
        pipe.send(DONE)


def _fresh() -> None:
    """Nothing of the case before: neither its tensors nor its settings."""
    import torch

    gc.collect()
    torch.backends.cudnn.allow_tf32 = True
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _describe() -> dict[str, Any]:
    import torch
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    # The CPU's part is small: threads would wait for each other, and on a busy machine for long.
    torch.set_num_threads(1)
    is_cuda = torch.cuda.is_available()
    with contextlib.suppress(Exception):
        importlib.import_module("gpu_sizes")  # else the first case would pay for the imports
    return {
        "device": torch.cuda.get_device_name() if is_cuda else None,
        "memory_gib": round(torch.cuda.mem_get_info()[1] / 2**30, 1) if is_cuda else None,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "transformers": transformers.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }
