"""A session as bytes, and back: safetensors, with its progress as JSON in the header."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import torch
from safetensors.torch import load, save
from torch import Tensor

from magtkd.metrics import Report

__all__ = ["Checkpoint", "Progress"]


@dataclass
class Progress:
    """How far a session is."""

    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    train_seconds: float = 0.0
    peak_memory: int = 0
    best_epoch: int = 0
    best_score: float = -math.inf
    reports: list[Report] = field(default_factory=list)


@dataclass(frozen=True)
class Checkpoint:
    """What a session is restored from: the weights of `model` and those of the `best` epoch by
    name, the state of the `optimizer` by the number of the parameter, that of the gradients'
    `scaler` (empty where there is none), and the `progress`."""

    model: Mapping[str, Tensor]
    best: Mapping[str, Tensor]
    optimizer: Mapping[int, Mapping[str, Any]]
    scaler: dict[str, Any]
    progress: Progress

    def to_bytes(self) -> bytes:
        """The checkpoint as a safetensors file."""
        tensors = {f"model/{name}": tensor for name, tensor in self.model.items()}
        tensors |= {f"best/{name}": tensor for name, tensor in self.best.items()}
        for index, values in self.optimizer.items():
            for name, value in values.items():
                tensors[f"optimizer/{index}/{name}"] = torch.as_tensor(value)
        progress = asdict(self.progress) | {"scaler": self.scaler}
        if not math.isfinite(self.progress.best_score):
            progress["best_score"] = None  # JSON has no infinity
        copies = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        content: bytes = save(copies, metadata={"progress": json.dumps(progress)})
        return content

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """The checkpoint in a safetensors file, on the CPU.

        Raises:
            ValueError: it is no such file.
        """
        header_size = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + header_size])
        progress = json.loads(header["__metadata__"]["progress"])
        groups: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "optimizer": {}}
        for name, tensor in load(content).items():
            group, _, rest = name.partition("/")
            groups[group][rest] = tensor
        optimizer: dict[int, dict[str, Tensor]] = {}
        for name, tensor in groups["optimizer"].items():
            index, _, key = name.partition("/")
            optimizer.setdefault(int(index), {})[key] = tensor
        scaler = progress.pop("scaler")
        if progress["best_score"] is None:
            progress["best_score"] = -math.inf
        reports = [Report(**report) for report in progress.pop("reports")]
        return cls(
            model=groups["model"],
            best=groups["best"],
            optimizer=optimizer,
            scaler=scaler,
            progress=Progress(**progress, reports=reports),
        )
