"""The trainer that trains: torch, and what `magtkd.stages` has for each stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from magtkd.config import Config
from magtkd.data.columns import features_column
from magtkd.media import Clips
from magtkd.pipeline.members import DATA, find_stage
from magtkd.pipeline.stage import TrainedStage
from magtkd.store import Artifact

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from magtkd.stages.inputs import Inputs
    from magtkd.training import Session, TrainResult

__all__ = ["CORE_TRAINER", "CoreTrainer", "inputs_of", "outputs_table"]


@dataclass(frozen=True)
class CoreTrainer:
    """Opens sessions of `magtkd.training`; the default wherever a `Trainer` is a parameter.

    Args:
        device: where to compute, as torch writes it; None for CUDA where there is one.
    """

    device: str | None = None

    def open_session(
        self, stage: str, config: Config, upstream: Mapping[str, Artifact]
    ) -> Session[Any, Any]:
        """See `Trainer`.

        Raises:
            ConfigError: an encoder or the weights to start from cannot be had.
        """
        import torch

        from magtkd.training import Session

        device = torch.device(self.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        member = cast(TrainedStage, find_stage(stage))
        inputs = inputs_of(upstream)
        return Session(
            stage=stage,
            section=cast(Any, member.section(config)),
            seed=member.seed(config),
            make_task=lambda: member.make_task(config, inputs, device),
            label=inputs.label,
            split=inputs.split,
            labels=inputs.labels,
            device=device,
        )

    def artifact_of(
        self,
        result: TrainResult,
        stage: str,
        key: str,
        data: Artifact,
        described: dict[str, Any],
    ) -> Artifact:
        """See `Trainer`: features and logits beside each utterance's identity."""
        table = outputs_table(data.table, result.features, result.logits)
        return Artifact(stage, key, table, result.metrics, described, result.weights)


CORE_TRAINER = CoreTrainer()
"""The default trainer."""


def outputs_table(data: pa.Table, features: np.ndarray, logits: np.ndarray) -> pa.Table:
    """What a trained stage makes of a prepared table: features [N, H] and logits [N, C], each
    utterance beside its identity."""
    table = data.select(["split", "dialogue_id", "utterance_id"]).replace_schema_metadata()
    table = table.append_column("features", features_column(features))
    return table.append_column("logits", features_column(logits))


def inputs_of(upstream: Mapping[str, Artifact]) -> Inputs:
    """What a stage is given, from the artifacts of the stages that it reads, `data` among them."""
    from magtkd.stages.inputs import Inputs

    data = upstream[DATA.name].table
    tables, media = {}, {}
    for name, artifact in upstream.items():
        stage = find_stage(name)
        if stage.modality is not None and stage.is_trained:
            tables[stage.modality] = artifact.table
        elif stage.modality is not None:
            media[stage.modality] = Clips(artifact.table, artifact.media, data)
    return Inputs(data, tables, media)
