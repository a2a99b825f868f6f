"""What a stage is: its section, what it reads, how its key is made, and how its artifact is made.

Imports no torch: a trial and the engine plan with it.
"""

from __future__ import annotations

import functools
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from magtkd.config import Config, Resources, Section
from magtkd.data import Corpus
from magtkd.memory import MemoryPeak, memory_named
from magtkd.metrics import Report
from magtkd.model_files import model_folder
from magtkd.pipeline.source import Source
from magtkd.reading import EVERYTHING, Given
from magtkd.store import Artifact, Checkpoints, stage_key

if TYPE_CHECKING:
    import torch

    from magtkd.stages.inputs import Inputs
    from magtkd.training import Task

__all__ = [
    "OpenSession",
    "Stage",
    "TrainedStage",
    "Trainer",
    "UntrainedStage",
    "Work",
]


class OpenSession(Protocol):
    """A stage in training, as `magtkd.training.Session` is: one epoch at a time."""

    @property
    def epoch(self) -> int:
        """Epochs done."""

    @property
    def reports(self) -> list[Report]:
        """The reports of all epochs."""

    @property
    def seconds(self) -> float:
        """Seconds of work that are in it."""

    @property
    def is_done(self) -> bool:
        """Whether there is no epoch left."""

    def advance(self) -> Report:
        """Train one epoch."""

    def run(self, report: Callable[[Report], None] | None = None) -> Any:
        """Train to the end; the result is for `artifact_of`."""

    def result(self) -> Any:
        """What was trained so far, for `artifact_of`."""

    def checkpoint(self) -> bytes:
        """The whole session, for `restore`."""

    def restore(self, checkpoint: bytes) -> None:
        """Continue from a checkpoint."""


class Trainer(Protocol):
    """Opens the sessions that train. It can be pickled, since workers in other processes get it,
    and imports torch only when a session is opened."""

    def open_session(
        self, stage: str, config: Config, upstream: Mapping[str, Artifact]
    ) -> OpenSession:
        """A stage's session at its start.

        Args:
            stage: the name of a stage that is trained.
            config: the whole configuration, of which the stage reads its section and the seed.
            upstream: the artifacts of the stages that it reads, by stage; `data` among them.
        """

    def artifact_of(
        self, result: Any, stage: str, key: str, data: Artifact, described: dict[str, Any]
    ) -> Artifact:
        """The artifact of a trained stage.

        Args:
            result: what the session gave.
            stage: the stage's name.
            key: its key.
            data: the data stage's artifact, for the identity of each row.
            described: what the key was made of.
        """


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a stage's artifact is made with; see `train_stage`."""

    config: Config
    key: str
    described: dict[str, Any]
    upstream: Mapping[str, Artifact]
    trainer: Trainer
    corpus: Corpus | None = None
    report: Callable[[Report], None] | None = None
    checkpoints: Checkpoints | None = None
    scratch: Path | None = None


@dataclass(frozen=True)
class Stage(ABC):
    """A stage of the chain.

    Args:
        name: its name, which is that of its section too.
        version: the version of its code: raise it with each change that changes its results.
        modality: `text`, `audio` or `video`; None where it is of no modality in particular.
    """

    name: str
    version: int = 1
    modality: str | None = None

    is_trained = True
    """Whether it is trained epoch by epoch, and so has reports, features and weights."""
    is_keyed_by_table = False
    """Whether its key is made from the table itself, in place of the stages that it reads."""

    def section(self, config: Config) -> Section:
        """Its section of the configuration."""
        section: Section = getattr(config, self.name)
        return section

    def resources(self, config: Config) -> Resources | None:
        """What its worker asks for; None where it asks for nothing."""
        return getattr(config.resources, self.name, None)

    def is_there(self, config: Config, source: Source) -> bool:
        """Whether a chain can have this stage, by the table and its own section."""
        return True

    @abstractmethod
    def reads(self, config: Config, source: Source) -> tuple[str, ...]:
        """The names of the stages that it reads, in the order of the chain.

        Raises:
            DataError: the table lacks what the configuration wants of this stage.
        """

    def given(self, config: Config, source: Source) -> Given:
        """What it is given, as far as it decides what it reads of its section."""
        return EVERYTHING

    def seed(self, config: Config) -> int:
        """The seed in its key."""
        return config.seed_of(self.name)

    def keyed_section(self, config: Config, source: Source) -> dict[str, Any]:
        """Its section as it is in its key: by what it does, not by how it is written, and without
        what is not read.

        Raises:
            ConfigError: a file that the section names cannot be read.
        """
        section = self.section(config).keyed(self.given(config, source))
        folder = model_folder(section.get("encoder", "features"))
        if folder is not None:
            section["encoder"] = _folder_fingerprint(folder)
        return section

    def keyed_upstream(self, source: Source, upstream: Mapping[str, str]) -> Mapping[str, str]:
        """What its key is made of besides its section: by default the keys of what it reads."""
        return upstream

    def key(
        self,
        config: Config,
        source: Source,
        upstream: Mapping[str, str],
        replaced: Mapping[str, Any] | None = None,
    ) -> str:
        """Its key (see `stage_key`).

        Args:
            config: the whole configuration.
            source: the table.
            upstream: the keys of the stages that it reads, by stage.
            replaced: values that are in the key in place of those of the section.

        Raises:
            ConfigError: a file that the section names cannot be read.
        """
        return stage_key(
            self.name,
            version=self.version,
            section=self.keyed_section(config, source) | dict(replaced or {}),
            seed=self.seed(config),
            upstream=self.keyed_upstream(source, upstream),
        )

    @abstractmethod
    def make(self, work: Work) -> Artifact:
        """Make its artifact.

        Raises:
            DataError: the table or a clip cannot be read.
            DivergedError: a loss was not finite.
            StageMemoryError: it did not fit into memory.
        """


class UntrainedStage(Stage):
    """A stage that makes its artifact in one step, without torch."""

    is_trained = False
    is_keyed_by_table = True

    def make(self, work: Work) -> Artifact:
        with MemoryPeak() as peak:
            made = self.build(work)
        return replace(made, metrics=made.metrics | {"peak_memory": peak.num_bytes})

    @abstractmethod
    def build(self, work: Work) -> Artifact:
        """Make its artifact, with all metrics except the peak of memory."""


class TrainedStage(Stage):
    """A stage that a trainer trains epoch by epoch, from its last checkpoint where there is one."""

    def make(self, work: Work) -> Artifact:
        with memory_named(self.name, self.section(work.config)):
            session = work.trainer.open_session(self.name, work.config, work.upstream)
            if work.checkpoints is not None and (checkpoint := work.checkpoints.load()) is not None:
                session.restore(checkpoint)

            def after_epoch(latest: Report) -> None:
                if work.report is not None:
                    work.report(latest)
                if work.checkpoints is not None:
                    work.checkpoints.offer(session)

            result = session.run(after_epoch)
            return work.trainer.artifact_of(
                result, self.name, work.key, work.upstream["data"], work.described
            )

    @abstractmethod
    def make_task(self, config: Config, inputs: Inputs, device: torch.device) -> Task[Any]:
        """Its task, from what it is given. Imports torch."""


def _folder_fingerprint(folder: Path) -> str:
    """A hash of a model folder's files: two models under one path must not share a key."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256("".join(_file_hash(*stat) for stat in stats).encode()).hexdigest()


@functools.lru_cache(maxsize=256)
def _file_hash(path: str, size: int, modified: int) -> str:
    with Path(path).open("rb") as file:
        return Path(path).name + hashlib.file_digest(file, "sha256").hexdigest()
