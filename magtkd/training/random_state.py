"""Random numbers: a seed for each epoch, and the global random state while it runs."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch

__all__ = ["RandomState", "derive_seed"]


def derive_seed(seed: int, stage: str, epoch: int) -> int:
    """A seed of its own for each stage and epoch, so that an epoch repeats without those before
    it. Epoch 0 initialises the weights."""
    digest = hashlib.sha256(f"{seed}/{stage}/{epoch}".encode()).digest()
    return int.from_bytes(digest[:7], "big")


class RandomState:
    """The global random state of one epoch, put back afterwards, and a generator for the order of
    the data: a worker holds several sessions, and none may depend on what another drew."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self._seed = seed
        self._numpy: Any = None
        devices = [device] if device.type == "cuda" else []
        self._fork = torch.random.fork_rng(devices=devices)

    def __enter__(self) -> torch.Generator:
        self._fork.__enter__()
        # Speech encoders mask by numpy's numbers (SpecAugment).
        self._numpy = np.random.get_state()
        np.random.seed(self._seed % 2**32)
        torch.manual_seed(self._seed)
        return torch.Generator().manual_seed(self._seed)

    def __exit__(self, *error: Any) -> None:
        self._fork.__exit__(*error)
        np.random.set_state(self._numpy)
