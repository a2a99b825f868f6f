"""The chain of stages: which there are, what each reads, and the keys that follow.

Imports no torch: a trial and the engine plan with it. Training itself is imported when it starts.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magtkd.config import Config
from magtkd.data import Corpus, feature_widths, media_root, prepare, read_corpus
from magtkd.errors import DataError
from magtkd.fusion_inputs import fusion_reads, keyed_fusion
from magtkd.media import (
    MEDIA_STAGES,
    find_absent,
    make_media,
    media_fingerprints,
    wanted_frames,
)
from magtkd.memory import MemoryPeak, memory_named
from magtkd.model_files import model_folder
from magtkd.store.checkpoints import Exports
from magtkd.store.store import Artifact, Store, stage_key

if TYPE_CHECKING:
    from magtkd.training import Report

__all__ = [
    "STAGES",
    "VERSIONS",
    "Plan",
    "Source",
    "StageRecord",
    "describe_stage",
    "make_plan",
    "run_chain",
    "source_of",
    "stage_exports",
    "train_stage",
    "trained_record",
]

_log = logging.getLogger(__name__)

STAGES = ("data", "teacher", "audio_media", "video_media", "audio", "video", "fusion")
"""All stages, in an order in which each comes after what it reads."""

VERSIONS = dict.fromkeys(STAGES, 1) | {"fusion": 2}
"""Raise a stage's version with each change of its code that changes its results."""


@dataclass(frozen=True)
class Source:
    """What planning needs to know of a table: its fingerprint, the modalities that come as
    features, and for those that come as clips a hash of the files (`media_fingerprints`); for
    those none of whose files is there, what to tell a person who wants them."""

    fingerprint: str
    with_features: tuple[str, ...]
    media: Mapping[str, str] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """The stages of one configuration in order: `keys` by stage, and the stages that each
    `reads`."""

    keys: dict[str, str]
    reads: dict[str, tuple[str, ...]]

    @property
    def upstream(self) -> tuple[str, ...]:
        """All stages but fusion."""
        return tuple(stage for stage in self.keys if stage != "fusion")


@dataclass(frozen=True)
class StageRecord:
    """How a run came by a stage: `trained` or `reused`, the seconds that it spent on it, and for a
    reused stage the seconds that it `saved`, which is what its training had taken (None where that
    is unknown). For a trained one, utterances a second and the most bytes of memory, where they
    were measured."""

    key: str
    outcome: str
    seconds: float
    saved: float | None = None
    samples_per_second: float | None = None
    peak_memory: int | None = None


def trained_record(key: str, metrics: Mapping[str, Any]) -> StageRecord:
    """The record of a stage that was trained just now, from its artifact's metrics."""
    measured = {name: metrics.get(name) for name in ("samples_per_second", "peak_memory")}
    return StageRecord(key, "trained", metrics["seconds"], **measured)


def source_of(corpus: Corpus) -> Source:
    """What planning needs to know of a corpus."""
    media = media_fingerprints(corpus.table, corpus.media)
    absent = {
        modality: f"data.media: {corpus.media} has none of the table's files for {modality}, such "
        f"as {path}; give the folder that the paths are relative to"
        for modality, path in find_absent(corpus.table, corpus.media).items()
    }
    return Source(corpus.fingerprint, tuple(feature_widths(corpus.table)), media, absent)


def _reads(config: Config, source: Source) -> dict[str, tuple[str, ...]]:
    """What each stage of this configuration reads; stages without their modality are left out."""
    has_teacher = "text" in source.with_features or config.teacher.encoder != "features"
    reads: dict[str, tuple[str, ...]] = {"data": ()}
    if has_teacher:
        reads["teacher"] = ("data",)
    for stage, modality in MEDIA_STAGES.items():
        if _takes_clips(config, modality, source):
            reads[stage] = ("data",)
    for stage, section in (("audio", config.audio), ("video", config.video)):
        if stage in source.with_features or f"{stage}_media" in reads:
            clips = (f"{stage}_media",) if f"{stage}_media" in reads else ()
            teacher = ("teacher",) if has_teacher and section.distill is not None else ()
            reads[stage] = ("data", *teacher, *clips)
    if len(reads) == 1:
        raise DataError(
            "teacher.encoder is 'features', but the table has no text_features and no other "
            "modality; set teacher.encoder to 'tiny' or a transformers model"
        )
    reads["fusion"] = tuple(stage for stage in reads if stage not in MEDIA_STAGES)
    return reads


def _takes_clips(config: Config, modality: str, source: Source) -> bool:
    encoder = getattr(config, modality).encoder
    if encoder == "features":
        return False
    if modality not in source.media:
        names = "audio_path and no video_path" if modality == "audio" else "video_path"
        raise DataError(
            f"{modality}.encoder is {encoder!r}, but the table has no {names}; add the paths of "
            f"the clips, or set {modality}.encoder to 'features'"
        )
    if modality in source.absent:
        raise DataError(source.absent[modality])
    return True


def make_plan(config: Config, source: Source) -> Plan:
    """The stages of a configuration and their keys (see `stage_key`).

    Raises:
        ConfigError: the weights to start from cannot be read.
        DataError: the table has none of the modalities that the configuration could train on, or
            not those that it fuses.
    """
    reads = fusion_reads(_reads(config, source), config.fusion, source.with_features)
    keys: dict[str, str] = {}
    for stage, upstream in reads.items():
        keys[stage] = stage_key(
            stage,
            version=VERSIONS[stage],
            section=keyed_fusion(config.fusion, source.with_features)
            if stage == "fusion"
            else _keyed_section(config, stage),
            seed=_seed_of(stage, config),
            upstream=_source_keys(stage, source) or {name: keys[name] for name in upstream},
        )
    return Plan(keys, reads)


def _seed_of(stage: str, config: Config) -> int:
    """What a clip shows hangs on no seed, though data, which says where it lies, does."""
    return 0 if stage in MEDIA_STAGES else config.seed


def _source_keys(stage: str, source: Source) -> dict[str, str]:
    """What a stage's key takes from the table itself, in place of the stages that it reads."""
    if stage in MEDIA_STAGES:
        return {"table": source.fingerprint, "media": source.media[MEDIA_STAGES[stage]]}
    return {"table": source.fingerprint} if stage == "data" else {}


def _keyed_section(config: Config, stage: str) -> dict[str, Any]:
    section: dict[str, Any] = getattr(config, stage).model_dump(mode="json")
    if stage == "data":
        # The fingerprint stands for where the table came from.
        del section["path"], section["media"], section["synthetic"]
        if section["standardise"]:
            del section["standardise"]  # which tables were before it was a choice
    if stage == "video_media":
        section["num_frames"], section["image_size"] = wanted_frames(config)
    folder = model_folder(section.get("encoder", "features"))
    if folder is not None:
        section["encoder"] = _folder_fingerprint(folder)
    return section


def _folder_fingerprint(folder: Path) -> str:
    """A hash of a model folder's files: two models under one path must not share a key."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256("".join(_file_hash(*stat) for stat in stats).encode()).hexdigest()


@functools.lru_cache(maxsize=256)
def _file_hash(path: str, size: int, modified: int) -> str:
    with Path(path).open("rb") as file:
        return Path(path).name + hashlib.file_digest(file, "sha256").hexdigest()


def train_stage(
    stage: str,
    config: Config,
    plan: Plan,
    upstream: Mapping[str, Artifact],
    *,
    corpus: Corpus | None = None,
    report: Callable[[Report], None] | None = None,
    exports: Exports | None = None,
    stages: Any = None,
    scratch: Path | None = None,
) -> Artifact:
    """Train one stage to its end, from its last export where there is one.

    Args:
        stage: its name; `data` prepares the table.
        config: the whole configuration, of which the stage reads its section and the seed.
        plan: the configuration's plan.
        upstream: the artifacts of the stages it reads, by stage.
        corpus: the table, where the stage is `data` and it was read before.
        report: called after each epoch.
        exports: where the session is exported while it trains; None for nowhere.
        stages: the module that trains; None for `magtkd.stages`.
        scratch: where a media stage writes its clips until they are stored; None for the system's
            temporary folder.

    Raises:
        DataError: a clip cannot be read.
        DivergedError: a loss was not finite.
        StageMemoryError: it did not fit into memory.
    """
    if stage == "data" or stage in MEDIA_STAGES:
        with MemoryPeak() as peak:
            if stage == "data":
                made = _make_data(config, plan, corpus)
            else:
                made = _make_media(stage, config, plan, upstream["data"], scratch)
        return replace(made, metrics=made.metrics | {"peak_memory": peak.num_bytes})
    if stages is None:
        from magtkd import stages

    with memory_named(stage, getattr(config, stage)):
        session = stages.open_session(stage, config, upstream)
        if exports is not None and (exported := exports.load()) is not None:
            session.load(exported)

        def after_epoch(latest: Report) -> None:
            if report is not None:
                report(latest)
            if exports is not None:
                exports.offer(session)

        result = session.run(after_epoch)
        artifact: Artifact = stages.artifact_of(
            result, stage, plan.keys[stage], upstream["data"], describe_stage(stage, config, plan)
        )
    return artifact


def _make_data(config: Config, plan: Plan, corpus: Corpus | None) -> Artifact:
    started = time.perf_counter()
    table = prepare(corpus or read_corpus(config.data), config.data, config.seed)
    seconds = time.perf_counter() - started
    metrics = {"seconds": seconds, "samples_per_second": table.num_rows / seconds}
    return Artifact("data", plan.keys["data"], table, metrics, describe_stage("data", config, plan))


def _make_media(
    stage: str, config: Config, plan: Plan, data: Artifact, scratch: Path | None
) -> Artifact:
    described = describe_stage(stage, config, plan)
    root = media_root(config.data)
    return make_media(stage, plan.keys[stage], config, data.table, root, described, scratch)


def stage_exports(store: Store, stage: str, key: str) -> Exports | None:
    """Where a stage that others may share is exported while it trains."""
    is_trained = stage != "data" and stage not in MEDIA_STAGES
    return Exports(store, f"stages/{stage}-{key}") if is_trained else None


def describe_stage(stage: str, config: Config, plan: Plan) -> dict[str, Any]:
    """What a stage's key was made of, as plain values: written beside its result."""
    return {
        "stage": stage,
        "version": VERSIONS[stage],
        "section": getattr(config, stage).model_dump(mode="json"),
        "seed": _seed_of(stage, config),
        "upstream": {}
        if stage in MEDIA_STAGES
        else {name: plan.keys[name] for name in plan.reads[stage]},
    }


def run_chain(
    config: Config,
    store: Store,
    *,
    reuse: bool = True,
    with_fusion: bool = True,
    report: Callable[[str, Report], None] | None = None,
    on_stage: Callable[[str, StageRecord], None] | None = None,
    say: Callable[[str], None] = _log.warning,
) -> dict[str, Artifact]:
    """Run all stages of a configuration in this process, reusing artifacts.

    A stage that was interrupted goes on from its last export.

    Args:
        config: the configuration.
        store: where artifacts are looked for and written.
        reuse: look for artifacts before training.
        with_fusion: run the fusion stage too, and not only what it reads.
        report: called with the stage's name after each epoch.
        on_stage: called when a stage is there, trained or reused.
        say: told of a damaged artifact, which is set aside and trained again, and of clips that
            could not be read.

    Raises:
        InputError: the configuration or its table is wrong.
        DivergedError: a loss was not finite.
        StageMemoryError: a stage did not fit into memory.
    """
    corpus = read_corpus(config.data)
    plan = make_plan(config, source_of(corpus))
    artifacts: dict[str, Artifact] = {}
    for stage in plan.keys if with_fusion else plan.upstream:
        key = plan.keys[stage]
        found = store.find(stage, key, say=say) if reuse else None
        if found is not None:
            artifacts[stage] = found
            record = StageRecord(key, "reused", 0.0, found.metrics["seconds"])
        else:
            _use_threads(config, stage)
            exports = stage_exports(store, stage, key) if reuse else None
            trained = train_stage(
                stage,
                config,
                plan,
                {name: artifacts[name] for name in plan.reads[stage]},
                corpus=corpus,
                report=functools.partial(report, stage) if report else None,
                exports=exports,
                scratch=store.local_path("tmp"),
            )
            artifacts[stage] = store.write(trained)
            for warning in trained.metrics.get("warnings", ()):
                say(warning)
            if exports is not None:
                exports.remove()
            record = trained_record(key, artifacts[stage].metrics)
        if on_stage is not None:
            on_stage(stage, record)
    return artifacts


def _use_threads(config: Config, stage: str) -> None:
    if stage == "data":
        return
    import torch

    # As a sweep's worker does: the number of threads changes the last bits of a sum.
    torch.set_num_threads(getattr(config.resources, stage).num_threads)
