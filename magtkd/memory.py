"""What a stage takes of memory, and the message where it does not fit."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from magtkd.errors import StageMemoryError

__all__ = ["MemoryPeak", "check_device_memory", "memory_named"]

BYTES_TRAINED, BYTES_FROZEN = 20, 4
SIZES = ("batch_size", "max_length", "prompt_length", "hidden_dim", "depth", "model", "encoder")
# The messages of torch, numpy, the CUDA libraries and Python.
_OUT_OF_MEMORY = re.compile(
    r"out of memory|can't allocate memory|unable to allocate|bad_alloc|_STATUS_ALLOC_FAILED", re.I
)


class MemoryPeak:
    """The most memory in use in a block, as `num_bytes`: what torch allocated of a CUDA device,
    or on a CPU what is resident of this process; 0 where the system does not report it.

    Args:
        device: where the block computes, as torch has it; None for a CPU, without torch.
    """

    num_bytes = 0

    def __init__(self, device: Any = None) -> None:
        self._device = device
        self._is_cuda = device is not None and device.type == "cuda"

    def __enter__(self) -> MemoryPeak:
        if self._is_cuda:
            import torch

            # Before it, there is no allocator to ask.
            torch.cuda.init()  # type: ignore[no-untyped-call]
            torch.cuda.reset_peak_memory_stats(self._device)
        else:
            with contextlib.suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")  # reset the peak
        return self

    def __exit__(self, *error: object) -> None:
        if self._is_cuda:
            import torch

            self.num_bytes = torch.cuda.max_memory_allocated(self._device)
            return
        with contextlib.suppress(OSError):
            found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
            self.num_bytes = int(found[1]) * 1024 if found else 0


def check_device_memory(
    stage: str, section: Any, num_trained: int, num_frozen: int, num_bytes: int
) -> None:
    """Check by arithmetic that a model and its optimizer fit on a device, before any step: a
    trained weight takes 20 bytes (itself, its gradient, AdamW's two moments, the best epoch's
    copy), a frozen one 4. Activations come on top of that.

    Args:
        stage: the stage's name.
        section: its configuration.
        num_trained: weights that are trained.
        num_frozen: those that are not.
        num_bytes: the device's memory.

    Raises:
        StageMemoryError: they do not.
    """
    needed = BYTES_TRAINED * num_trained + BYTES_FROZEN * num_frozen
    if needed <= num_bytes:
        return
    ways = "".join(f"{way}, " for way in _ways_out_of_weights(stage, section))
    raise StageMemoryError(
        f"{stage}: its weights and optimizer take {needed / 1e9:.1f} GB, and the device has "
        f"{num_bytes / 1e9:.1f} GB; {ways}{'or ' if ways else ''}"
        f"give it a larger device with resources.{stage}"
    )


@contextlib.contextmanager
def memory_named(stage: str, section: Any) -> Iterator[None]:
    """Name the stage, its sizes, and what helps, where the block runs out of memory.

    Args:
        stage: the stage's name.
        section: its configuration.

    Raises:
        StageMemoryError: instead of the error that was raised for lack of memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not _OUT_OF_MEMORY.search(str(error)):
            raise
        message = " ".join(str(error).split()) or "no memory is left"
        sizes = ", ".join(
            f"{name} {getattr(section, name)}" for name in SIZES if hasattr(section, name)
        )
        ways = "".join(f"{way}, " for way in _ways_out(stage, section))
        raise StageMemoryError(
            f"{stage}: out of memory with {sizes}: {message[:300]}; {ways}{'or ' if ways else ''}"
            f"give it a larger device with resources.{stage}"
        ) from error


def _ways_out(stage: str, section: Any) -> Iterator[str]:
    """What else takes less memory: what the section allows and does not do already."""
    if section.batch_size > 1:
        yield f"lower {stage}.batch_size, with {stage}.accumulation raised to keep the step"
    if section.precision == "float32":
        yield f"set {stage}.precision=bfloat16 (on CUDA)"
    if getattr(section, "encoder", "features") != "features":
        yield from _ways_out_of_encoder(stage, section)


def _ways_out_of_encoder(stage: str, section: Any) -> Iterator[str]:
    if section.CLIP_LENGTH is not None:
        yield f"lower {section.CLIP_LENGTH}"
    if hasattr(section, "max_length") and section.max_length > max(16, 2 * section.prompt_length):
        yield f"lower {stage}.max_length"
    if section.train != "full":
        return  # the encoder is left alone: it has nothing more to save
    if not section.gradient_checkpointing:
        yield f"set {stage}.gradient_checkpointing=true"
    yield from _ways_out_of_weights(stage, section)


def _ways_out_of_weights(stage: str, section: Any) -> Iterator[str]:
    """What trains fewer weights."""
    if getattr(section, "encoder", "features") == "features" or section.train != "full":
        return
    if section.lora is None:
        yield f"set {stage}.lora.rank=8"
    yield f"set {stage}.train={section.FROZEN} (without gradient_checkpointing and lora)"
