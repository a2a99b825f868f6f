"""Stages that train nothing, to measure the machinery around them:
`SweepOptions(trainer=StubTrainer())`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from magtkd.config import Config
from magtkd.data import read_metadata
from magtkd.metrics import Report
from magtkd.store import Artifact

__all__ = ["StubSession", "StubTrainer"]


class StubSession:
    """A session whose epochs take no time and whose score is the learning rate."""

    seconds = 0.0

    def __init__(self, score: float, num_epochs: int) -> None:
        self.epoch, self._score, self._num_epochs = 0, score, num_epochs

    @property
    def reports(self) -> list[Report]:
        return []

    @property
    def is_done(self) -> bool:
        return self.epoch >= self._num_epochs

    def advance(self) -> Report:
        self.epoch += 1
        return Report(self.epoch, self._metrics())

    def run(self, report: Callable[[Report], None] | None = None) -> dict[str, Any]:
        while not self.is_done:
            self.advance()
        return self.result()

    def result(self) -> dict[str, Any]:
        metrics, last = self._metrics(), self.epoch
        reports = [{"epoch": epoch, "metrics": metrics} for epoch in range(1, last + 1)]
        return {"epoch": last, "seconds": self.seconds, "reports": reports, "dev": {}}

    def _metrics(self) -> dict[str, float]:
        names = ("train/loss", "dev/loss", "dev/accuracy", "dev/weighted_f1")
        return dict.fromkeys(names, self._score)

    def checkpoint(self) -> bytes:
        return b""

    def restore(self, checkpoint: bytes) -> None:
        """There is nothing to restore."""


@dataclass(frozen=True)
class StubTrainer:
    """Opens such sessions."""

    def open_session(
        self, stage: str, config: Config, upstream: Mapping[str, Artifact]
    ) -> StubSession:
        """As `magtkd.pipeline.Trainer` has it."""
        section = getattr(config, stage)
        return StubSession(section.learning_rate, section.epochs)

    def artifact_of(
        self,
        result: dict[str, Any],
        stage: str,
        key: str,
        data: Artifact,
        described: dict[str, Any],
    ) -> Artifact:
        """As `magtkd.pipeline.Trainer` has it, with the identity of each utterance and logits of
        zero."""
        identity = data.table.select(["split", "dialogue_id", "utterance_id"])
        num_classes = len(read_metadata(data.table).labels)
        zeros = pa.array(np.zeros(len(identity) * num_classes, np.float32))
        logits = pa.FixedSizeListArray.from_arrays(zeros, num_classes)
        table = identity.replace_schema_metadata().append_column("logits", logits)
        return Artifact(stage, key, table, result, described)
