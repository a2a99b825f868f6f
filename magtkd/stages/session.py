"""From a stage's name to its training session, and from the result to its artifact."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from magtkd.config import Config
from magtkd.data.columns import features_column
from magtkd.media import MEDIA_STAGES, Clips
from magtkd.stages import fusion, student, teacher
from magtkd.stages.inputs import Inputs
from magtkd.store.store import Artifact
from magtkd.training import Session, TrainResult

__all__ = ["artifact_of", "open_session"]


def open_session(
    stage: str,
    config: Config,
    upstream: Mapping[str, Artifact],
    device: torch.device | None = None,
) -> Session[Any, Any]:
    """A session at its start.

    Args:
        stage: `teacher`, `audio`, `video` or `fusion`.
        config: the whole configuration, of which the stage reads its section and the seed.
        upstream: the artifacts of the stages that it reads, by stage; `data` among them.
        device: where to compute; CUDA where there is one, by default.
    """
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    inputs = _inputs_of(upstream)
    section = getattr(config, stage)

    def make_task() -> Any:
        if stage == "teacher":
            return teacher.make_task(section, inputs, device)
        if stage == "fusion":
            return fusion.make_task(section, inputs, device)
        return student.make_task(section, inputs, stage, device)

    return Session(
        stage=stage,
        section=section,
        seed=config.seed,
        make_task=make_task,
        label=inputs.label,
        split=inputs.split,
        labels=inputs.labels,
        device=device,
    )


def _inputs_of(upstream: Mapping[str, Artifact]) -> Inputs:
    data = upstream["data"].table
    tables = {
        name: artifact.table
        for name, artifact in upstream.items()
        if name != "data" and name not in MEDIA_STAGES
    }
    media = {
        modality: Clips(upstream[stage].table, upstream[stage].media, data)
        for stage, modality in MEDIA_STAGES.items()
        if stage in upstream
    }
    return Inputs(data, tables, media)


def artifact_of(
    result: TrainResult, stage: str, key: str, data: Artifact, described: dict[str, Any]
) -> Artifact:
    """The artifact of a trained stage: features and logits beside each utterance's identity.

    Args:
        result: what the session gave.
        stage: the stage's name.
        key: its key.
        data: the data stage's artifact, for the identity of each row.
        described: what the key was made of.
    """
    identity = data.table.select(["split", "dialogue_id", "utterance_id"]).replace_schema_metadata()
    table = identity.append_column("features", features_column(result.features))
    table = table.append_column("logits", features_column(result.logits))
    return Artifact(stage, key, table, result.metrics, described, result.weights)
