"""Emotions of new conversations, by a chain that was trained.

predictor = Predictor(load_config("best.yaml"), Store("magtkd-results"))
table = predictor.predict(pq.read_table("conversations.parquet"))
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from magtkd.config import Config, Section
from magtkd.data import prepare_new, read_corpus, read_metadata
from magtkd.errors import DataError
from magtkd.pipeline import (
    STAGES,
    MediaStage,
    TrainedStage,
    find_stage,
    inputs_of,
    make_plan,
    outputs_table,
    source_of,
)
from magtkd.store import Artifact, Store

__all__ = ["Predictor"]


def _say(line: str) -> None:
    warnings.warn(line, stacklevel=3)


class Predictor:
    """The trained stages of a configuration, from new conversations to emotions.

    Args:
        config: the configuration.
        store: where its artifacts are.
        keys: the keys of its stages, such as a ledger has them; by default they are made from the
            configuration, whose table is read for that.
        warn: called with one line for what the chain has not seen: speakers, missing modalities.

    Raises:
        DataError: a stage was not trained.
        InputError: the configuration or its table is wrong.
    """

    def __init__(
        self,
        config: Config,
        store: Store,
        keys: Mapping[str, str] | None = None,
        warn: Callable[[str], None] = _say,
    ) -> None:
        self._config, self._warn = config, warn
        if keys is None:
            keys = make_plan(config, source_of(read_corpus(config.data))).keys
        self._artifacts: dict[str, Artifact] = {}
        for stage in (one for one in STAGES if one in keys):
            if isinstance(find_stage(stage), MediaStage):
                continue
            found = store.find(stage, keys[stage], warn=warn)
            if found is None:
                raise DataError(
                    f"{stage}: {keys[stage]} is not in {store.address}; train it with magtkd "
                    "train, or give the --storage that has it"
                )
            self._artifacts[stage] = found
        self._stages = tuple(stage for stage in STAGES if stage in keys)
        self._known = self._artifacts["data"].table

    @property
    def labels(self) -> tuple[str, ...]:
        """The emotions, in the order of the probabilities."""
        return read_metadata(self._known).labels

    def __repr__(self) -> str:
        stages = ", ".join(self._stages)
        return f"Predictor({self._config.name!r}: {stages}; {len(self.labels)} emotions)"

    def predict(
        self, table: pa.Table, source: str = "table", media: str | Path | None = None
    ) -> pa.Table:
        """Emotions with their probabilities, a row for each utterance, sorted by dialogue and
        utterance.

        Args:
            table: dialogue_id, utterance_id, speaker, text, and the features or the paths of clips
                that the chain reads; labels and splits are ignored.
            source: what leads an error message.
            media: the folder that the clips' paths are relative to; by default the configuration's.

        Returns:
            dialogue_id, utterance_id, speaker, emotion, probability (of that emotion), and
            probability/LABEL for each.

        Raises:
            DataError: the table is not one, or a clip cannot be read.
        """
        new = prepare_new(table, self._known, self._config.data, source, self._warn)
        made = {"data": Artifact("data", "", new, {}, {})}
        with tempfile.TemporaryDirectory(prefix="magtkd-predict-") as scratch:
            for name in self._stages[1:]:
                stage = find_stage(name)
                if isinstance(stage, MediaStage):
                    made[name] = self._decode(stage, new, media, Path(scratch))
                else:
                    made[name] = self._apply(cast(TrainedStage, stage), made)
            return self._emotions(new, made[self._stages[-1]].table)

    def _decode(
        self, stage: MediaStage, new: pa.Table, media: str | Path | None, scratch: Path
    ) -> Artifact:
        config = self._config
        if media is not None:
            config = config.model_copy(
                update={"data": config.data.model_copy(update={"media": str(media)})}
            )
        return stage.build_for(config, new, key="", described={}, scratch=scratch)

    def _apply(self, stage: TrainedStage, made: Mapping[str, Artifact]) -> Artifact:
        """What a stage makes of the new rows: the features and logits of its trained weights."""
        import torch
        from safetensors.torch import load as load_tensors

        from magtkd.training import predict

        artifact = self._artifacts[stage.name]
        assert artifact.weights is not None, f"{stage.name} has no weights"
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        num_known, upstream = 0, dict(made)
        if stage.name == "teacher":  # a text encoder was made for the words and speakers of train
            known = self._known.filter(pc.equal(self._known["split"], "train"))
            both = [part.select(known.column_names) for part in (known, made["data"].table)]
            num_known = known.num_rows
            joined = pa.concat_tables(both).combine_chunks()
            joined = joined.replace_schema_metadata(self._known.schema.metadata)
            upstream = {"data": Artifact("data", "", joined, {}, {})}
        task = stage.make_task(_untrained(self._config, stage.name), inputs_of(upstream), device)
        task.model.load_state_dict(load_tensors(artifact.weights))
        task.model.to(device)
        rows, features, logits = predict(task, ("test",))
        order = np.argsort(rows)
        assert np.array_equal(rows[order], num_known + np.arange(made["data"].table.num_rows))
        table = outputs_table(made["data"].table, features[order], logits[order])
        return Artifact(stage.name, "", table, {}, {})

    def _emotions(self, new: pa.Table, fused: pa.Table) -> pa.Table:
        from scipy.special import softmax

        from magtkd.data import list_matrix

        probability = softmax(list_matrix(fused, "logits").astype(np.float64), axis=1)
        chosen, labels = probability.argmax(axis=1), self.labels
        columns = {name: new[name] for name in ("dialogue_id", "utterance_id", "speaker")}
        columns["emotion"] = pa.array([labels[one] for one in chosen])
        columns["probability"] = pa.array(probability[np.arange(len(chosen)), chosen])
        for place, label in enumerate(labels):
            columns[f"probability/{label}"] = pa.array(probability[:, place])
        return pa.table(columns)


def _untrained(config: Config, stage: str) -> Config:
    """The configuration, where nothing is made that only training needs: weights of classes, by
    labels that new conversations do not have, and weights to start from."""
    section: Section = getattr(config, stage)
    fields = type(section).model_fields
    changes: dict[str, Any] = {"class_weights": "none", "initial": None}
    own = {name: value for name, value in changes.items() if name in fields}
    return config.model_copy(update={stage: section.model_copy(update=own)})
