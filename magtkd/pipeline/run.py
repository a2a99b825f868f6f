"""Running stages: one of them, or the chain of a configuration."""

from __future__ import annotations

import functools
import logging
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from magtkd.config import Config, Resources, label_of
from magtkd.data import Corpus, read_corpus
from magtkd.errors import shorten
from magtkd.metrics import Report
from magtkd.pipeline.members import DATA, find_stage
from magtkd.pipeline.plan import Plan, describe_stage, make_plan
from magtkd.pipeline.record import StageRecord, reused_record, trained_record
from magtkd.pipeline.source import source_of
from magtkd.pipeline.stage import Trainer, Work
from magtkd.pipeline.trainer import CORE_TRAINER
from magtkd.pipeline.unread import unread_lines, unread_settings
from magtkd.scoring import check_label
from magtkd.store import Artifact, Checkpoints, Store

__all__ = ["run_chain", "stage_checkpoints", "train_stage"]

_log = logging.getLogger(__name__)


def train_stage(
    stage: str,
    config: Config,
    plan: Plan,
    upstream: Mapping[str, Artifact],
    *,
    corpus: Corpus | None = None,
    report: Callable[[Report], None] | None = None,
    checkpoints: Checkpoints | None = None,
    trainer: Trainer = CORE_TRAINER,
    scratch: Path | None = None,
) -> Artifact:
    """Train one stage to its end, from its last checkpoint where there is one.

    Args:
        stage: its name; `data` prepares the table.
        config: the whole configuration, of which the stage reads its section and the seed.
        plan: the configuration's plan.
        upstream: the artifacts of the stages it reads, by stage.
        corpus: the table, where the stage is `data` and it was read before.
        report: called after each epoch.
        checkpoints: where the session is saved while it trains; None to save none.
        trainer: opens the session of a stage that is trained.
        scratch: where a media stage writes its clips until they are stored; None for the system's
            temporary folder.

    Raises:
        DataError: a clip cannot be read.
        DivergedError: a loss was not finite.
        StageMemoryError: it did not fit into memory.
    """
    return find_stage(stage).make(
        Work(
            config=config,
            key=plan.keys[stage],
            described=describe_stage(stage, config, plan),
            upstream=upstream,
            trainer=trainer,
            corpus=corpus,
            report=report,
            checkpoints=checkpoints,
            scratch=scratch,
        )
    )


def stage_checkpoints(store: Store, stage: str, key: str) -> Checkpoints | None:
    """The checkpoints of a stage that others may share; None where it is not trained."""
    return Checkpoints(store, f"stages/{stage}-{key}") if find_stage(stage).is_trained else None


def run_chain(
    config: Config,
    store: Store,
    *,
    reuse: bool = True,
    with_fusion: bool = True,
    report: Callable[[str, Report], None] | None = None,
    on_stage: Callable[[str, StageRecord], None] | None = None,
    warn: Callable[[str], None] = _log.warning,
) -> dict[str, Artifact]:
    """Run all stages of a configuration in this process, reusing artifacts.

    A stage that was interrupted continues from its last checkpoint.

    Args:
        config: the configuration.
        store: where artifacts are looked for and written.
        reuse: look for artifacts before training.
        with_fusion: run the fusion stage too, and not only what it reads.
        report: called with the stage's name after each epoch.
        on_stage: called when a stage is there, trained or reused.
        warn: called with one line for each warning: the table's, settings that have no effect, a
            damaged artifact, which is quarantined and retrained, clips that could not be read.

    Raises:
        InputError: the configuration or its table is wrong.
        DivergedError: a loss was not finite.
        StageMemoryError: a stage did not fit into memory.
    """
    corpus = read_corpus(config.data)
    source = source_of(corpus)
    plan = make_plan(config, source)
    if with_fusion:
        for line in corpus.warnings:
            warn(line)
        for line in unread_lines(unread_settings(config, source)):
            warn(line)
    artifacts: dict[str, Artifact] = {}
    for stage in plan.keys if with_fusion else plan.upstream:
        key = plan.keys[stage]
        found = store.find(stage, key, warn=warn) if reuse else None
        if found is not None:
            artifacts[stage] = found
            record = reused_record(key, found.metrics)
        else:
            if find_stage(stage).is_trained:
                _use_threads(find_stage(stage).resources(config))
            checkpoints = stage_checkpoints(store, stage, key) if reuse else None
            trained = train_stage(
                stage,
                config,
                plan,
                {name: artifacts[name] for name in plan.reads[stage]},
                corpus=corpus,
                report=functools.partial(report, stage) if report else None,
                checkpoints=checkpoints,
                scratch=store.local_path("tmp"),
            )
            trained.metrics.update(_place(trained, find_stage(stage).resources(config)))
            artifacts[stage] = store.write(trained)
            for warning in trained.metrics.get("warnings", ()):
                warn(warning)
            if checkpoints is not None:
                checkpoints.remove()
            record = trained_record(key, artifacts[stage].metrics)
        if stage == DATA.name:
            _check_labels(config, plan, artifacts[stage])
        if on_stage is not None:
            on_stage(stage, record)
    return artifacts


def _check_labels(config: Config, plan: Plan, data: Artifact) -> None:
    """Check the labels that choose epochs, before anything is trained."""
    for stage in plan.keys:
        label = label_of(getattr(find_stage(stage).section(config), "select", ""))
        if label is not None:
            check_label(f"{stage}.select: 'f1/{shorten(label)}'", label, data.table)


def _place(trained: Artifact, resources: Resources | None) -> dict[str, Any]:
    """What the metrics say of where a stage was trained, as a sweep's workers say it; nothing of
    one that needs none. This process has a GPU to itself."""
    if resources is None:
        return {}
    device, share = "CPU", resources.cpu
    if trained.metrics.get("device") == "cuda":
        import torch

        device, share = torch.cuda.get_device_name(), 1.0
    return {"host": socket.gethostname(), "device": device, "share": share}


def _use_threads(resources: Resources | None) -> None:
    assert resources is not None, "a stage that is trained has resources"
    import torch

    # As a sweep's worker does: the number of threads changes the last bits of a sum.
    torch.set_num_threads(resources.num_threads)
