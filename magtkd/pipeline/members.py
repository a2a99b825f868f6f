"""The stages. To add one, add an object here, in its place in `REGISTRY`.

Imports no torch: what trains a stage is imported when its task is made.
"""

from __future__ import annotations

import hashlib
import time
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from magtkd.config import Config, StudentConfig
from magtkd.data import media_root, prepare, read_corpus
from magtkd.errors import ConfigError, DataError
from magtkd.media import ClipFormat, frame_format, make_media, wanted_frames, waveform_format
from magtkd.pipeline.source import Source
from magtkd.pipeline.stage import Stage, TrainedStage, UntrainedStage, Work
from magtkd.reading import Given
from magtkd.store import Artifact

if TYPE_CHECKING:
    import pyarrow as pa
    import torch

    from magtkd.stages.inputs import Inputs
    from magtkd.training import Task

__all__ = ["REGISTRY", "STAGES", "find_stage"]


class DataStage(UntrainedStage):
    """The prepared table."""

    def reads(self, config: Config, source: Source) -> tuple[str, ...]:
        return ()

    def keyed_section(self, config: Config, source: Source) -> dict[str, Any]:
        section = super().keyed_section(config, source)
        # The fingerprint stands for where the table came from.
        for name in ("path", "media", "synthetic"):
            section.pop(name, None)
        if section.get("standardise"):
            del section["standardise"]  # which tables were before it was a choice
        return section

    def given(self, config: Config, source: Source) -> Given:
        return Given(
            has_features=bool(source.with_features),
            has_dev=source.has_dev,
            has_clips=any(stage.is_there(config, source) for stage in (AUDIO_MEDIA, VIDEO_MEDIA)),
        )

    def keyed_upstream(self, source: Source, upstream: Mapping[str, str]) -> Mapping[str, str]:
        return {"table": source.fingerprint}

    def build(self, work: Work) -> Artifact:
        started, data = time.perf_counter(), work.config.data
        table = prepare(work.corpus or read_corpus(data), data, self.seed(work.config))
        seconds = time.perf_counter() - started
        metrics = {"seconds": seconds, "samples_per_second": table.num_rows / seconds}
        return Artifact(self.name, work.key, table, metrics, work.described)


class MediaStage(UntrainedStage):
    """The clips of one modality, decoded once for all trials."""

    modality: str

    def reads(self, config: Config, source: Source) -> tuple[str, ...]:
        return (DATA.name,)

    def is_there(self, config: Config, source: Source) -> bool:
        return self._encoder(config) != "features"

    def check(self, config: Config, source: Source) -> None:
        """Refuse a table without such clips.

        Raises:
            DataError: the table names none, or none of their files is there.
        """
        if self.modality not in source.media:
            names = "audio_path and no video_path" if self.modality == "audio" else "video_path"
            raise DataError(
                f"{self.modality}.encoder is {self._encoder(config)!r}, but the table has no "
                f"{names}; add the paths of the clips, or set {self.modality}.encoder to 'features'"
            )
        if self.modality in source.absent:
            raise DataError(source.absent[self.modality])

    def _encoder(self, config: Config) -> str:
        student = cast(StudentConfig, getattr(config, self.modality))
        return student.encoder

    def seed(self, config: Config) -> int:
        # Clips do not depend on the seed, though the data stage, which has their paths, does.
        return 0

    def keyed_upstream(self, source: Source, upstream: Mapping[str, str]) -> Mapping[str, str]:
        return {"table": source.fingerprint, "media": source.media[self.modality]}

    @abstractmethod
    def clip_format(self, config: Config) -> ClipFormat:
        """What a clip is decoded to."""

    def build(self, work: Work) -> Artifact:
        return self.build_for(
            work.config,
            work.upstream[DATA.name].table,
            key=work.key,
            described=work.described,
            scratch=work.scratch,
        )

    def build_for(
        self,
        config: Config,
        table: pa.Table,
        *,
        key: str,
        described: dict[str, Any],
        scratch: Path | None,
    ) -> Artifact:
        """The clips of a prepared table."""
        section: Any = self.section(config)
        resources = self.resources(config)
        assert resources is not None, f"resources has no {self.name}"
        return make_media(
            self.name,
            key,
            section,
            self.clip_format(config),
            table,
            root=media_root(config.data),
            threads=resources.num_threads,
            described=described,
            scratch=scratch,
        )


class AudioMediaStage(MediaStage):
    """The waveforms."""

    def clip_format(self, config: Config) -> ClipFormat:
        return waveform_format(config.audio_media)


class VideoMediaStage(MediaStage):
    """The frames."""

    def keyed_section(self, config: Config, source: Source) -> dict[str, Any]:
        section = super().keyed_section(config, source)
        section["num_frames"], section["image_size"] = wanted_frames(config)
        return section

    def clip_format(self, config: Config) -> ClipFormat:
        return frame_format(*wanted_frames(config))


class TeacherStage(TrainedStage):
    """The text teacher."""

    def is_there(self, config: Config, source: Source) -> bool:
        return "text" in source.with_features or config.teacher.encoder != "features"

    def reads(self, config: Config, source: Source) -> tuple[str, ...]:
        return (DATA.name,)

    def make_task(self, config: Config, inputs: Inputs, device: torch.device) -> Task[Any]:
        from magtkd.stages import teacher

        return teacher.make_task(config.teacher, inputs, device)


@dataclass(frozen=True, kw_only=True)
class StudentStage(TrainedStage):
    """The student of one modality, with the stage that decodes its clips."""

    modality: str
    media: MediaStage

    def is_there(self, config: Config, source: Source) -> bool:
        return self.modality in source.with_features or self.media.is_there(config, source)

    def reads(self, config: Config, source: Source) -> tuple[str, ...]:
        section = cast(StudentConfig, self.section(config))
        reads = [DATA.name]
        if section.distill is not None and TEACHER.is_there(config, source):
            reads.append(TEACHER.name)
        if self.media.is_there(config, source):
            self.media.check(config, source)
            reads.append(self.media.name)
        return tuple(reads)

    def given(self, config: Config, source: Source) -> Given:
        return Given(has_teacher=TEACHER.is_there(config, source))

    def keyed_section(self, config: Config, source: Source) -> dict[str, Any]:
        section = super().keyed_section(config, source)
        # Without distillation, it does not matter whether there is a teacher.
        if section.get("distill") is None:
            section.pop("distill", None)
        return section

    def make_task(self, config: Config, inputs: Inputs, device: torch.device) -> Task[Any]:
        from magtkd.stages import student

        section = cast(StudentConfig, self.section(config))
        return student.make_task(section, inputs, self.modality, device)


class FusionStage(TrainedStage):
    """The fusion of the modalities, with which every chain ends."""

    def reads(self, config: Config, source: Source) -> tuple[str, ...]:
        fused = self.fused(config, source)
        if config.fusion.inputs == "table":
            return (DATA.name,)
        return (DATA.name, *(stage.name for stage in FUSED if stage.modality in fused))

    def fused(self, config: Config, source: Source) -> tuple[str, ...]:
        """The modalities that are fused, the anchor first.

        Raises:
            DataError: one that is to be fused is not there, or none is.
        """
        section = config.fusion
        if section.inputs == "table":
            there, where = source.with_features, "the table has features of"
        else:
            stages = [stage for stage in FUSED if stage.is_there(config, source)]
            there, where = tuple(str(stage.modality) for stage in stages), "the stages make"
            if not there:
                raise DataError(
                    "teacher.encoder is 'features', but the table has no text_features and no "
                    "other modality; set teacher.encoder to 'tiny' or a transformers model"
                )
        wanted = section.fused_modalities or there
        missing = [modality for modality in wanted if modality not in there]
        if missing or not wanted:
            raise DataError(
                f"fusion.modalities is {section.modalities}, but {where} "
                f"{', '.join(there) or 'nothing'}; leave out "
                f"{', '.join(missing) or 'fusion.inputs'}"
            )
        return wanted

    def given(self, config: Config, source: Source) -> Given:
        return Given(modalities=self.fused(config, source))

    def keyed_section(self, config: Config, source: Source) -> dict[str, Any]:
        keyed, section = super().keyed_section(config, source), config.fusion
        keyed["initial"] = _file_fingerprint(section.initial)
        # Where stages are read, their keys are in the key.
        in_table = section.inputs == "table"
        keyed["modalities"] = list(self.fused(config, source)) if in_table else None
        return keyed

    def make_task(self, config: Config, inputs: Inputs, device: torch.device) -> Task[Any]:
        from magtkd.stages import fusion

        return fusion.make_task(config.fusion, inputs, device)


def _file_fingerprint(initial: str | None) -> str | None:
    """SHA-256 of the weights that a fusion starts from.

    Raises:
        ConfigError: the file cannot be read.
    """
    if initial is None:
        return None
    try:
        with Path(initial).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(
            f"fusion.initial: {initial}: cannot be read: {error.strerror}; give the path of a "
            "file of weights, or null"
        ) from None


DATA = DataStage("data")
TEACHER = TeacherStage("teacher", modality="text")
AUDIO_MEDIA = AudioMediaStage("audio_media", modality="audio")
VIDEO_MEDIA = VideoMediaStage("video_media", modality="video")
AUDIO = StudentStage(name="audio", modality="audio", media=AUDIO_MEDIA)
VIDEO = StudentStage(name="video", modality="video", media=VIDEO_MEDIA)
FUSION = FusionStage("fusion", version=3)

FUSED = (TEACHER, AUDIO, VIDEO)
"""The stages that fusion may read, the anchor's first."""

REGISTRY: dict[str, Stage] = {
    stage.name: stage for stage in (DATA, TEACHER, AUDIO_MEDIA, VIDEO_MEDIA, AUDIO, VIDEO, FUSION)
}
STAGES = tuple(REGISTRY)
"""The names of all stages, in an order in which each comes after what it reads."""


def find_stage(name: str) -> Stage:
    """The stage of this name, one of `STAGES`."""
    return REGISTRY[name]
