"""Conversations that a trained chain has not seen, as its stages read them."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from magtkd.config import DataConfig
from magtkd.data.checks import check_new
from magtkd.data.columns import (
    FEATURES,
    NO_LABEL,
    conform,
    feature_matrix,
    feature_widths,
    features_column,
)
from magtkd.data.prepare import METADATA_KEY, read_metadata, standardise
from magtkd.data.speakers import number_speakers
from magtkd.data.table import sort_table
from magtkd.errors import DataError

__all__ = ["prepare_new"]

SPLIT = "test"
"""In which the stages find them."""


def prepare_new(
    table: pa.Table,
    known: pa.Table,
    config: DataConfig,
    source: str,
    warn: Callable[[str], None],
) -> pa.Table:
    """New conversations as `prepare` makes a table, without labels, all in split test.

    Args:
        table: at least dialogue_id, utterance_id, speaker and text; labels and splits are ignored.
        known: the prepared table that the chain was trained on.
        config: the data section that it was prepared with.
        source: what leads an error message.
        warn: called with one line for each thing that the chain has not seen: speakers, modalities.

    Raises:
        DataError: columns are missing or of another type, an utterance is duplicated, features are
            not finite or of another width, or the chain's table was prepared by a version that did
            not keep how.
    """
    metadata = read_metadata(known)
    table = table.drop_columns([name for name in ("split", "label") if name in table.column_names])
    empty = pa.nulls(table.num_rows, pa.string())
    table = table.append_column("split", pa.array([SPLIT] * table.num_rows, pa.string()))
    table = sort_table(conform(table.append_column("label", empty), source))
    check_new(table, source)
    columns = {
        name: table[name] for name in ("split", "dialogue_id", "utterance_id", "speaker", "text")
    }
    columns["label"] = pa.array(np.full(table.num_rows, NO_LABEL, np.int32))
    index = _speaker_index(table, known, config, metadata.num_speakers, source, warn)
    columns["speaker_index"] = pa.array(index, pa.int32())
    widths = feature_widths(table)
    for modality, width in metadata.features.items():
        if modality not in widths:
            warn(f"{source}: has no {FEATURES[modality]}; zeros, the mean of train, in their place")
            values = np.zeros((table.num_rows, width), np.float32)
        elif widths[modality] != width:
            raise DataError(
                f"{source}: {FEATURES[modality]} are {widths[modality]} wide, and the chain was "
                f"trained on {width}; make them with the same extractor"
            )
        else:
            values = feature_matrix(table, modality)
            if config.standardise:
                if metadata.scales is None:
                    raise DataError(
                        f"{source}: the chain's data artifact does not have how features were "
                        "standardised; remove it, and call magtkd train with the configuration"
                    )
                values = standardise(values, *metadata.scales[modality])
        columns[FEATURES[modality]] = features_column(values)
    for name in ("audio_path", "video_path", "start", "end"):
        if name in known.column_names:
            there = name in table.column_names
            kind = known.schema.field(name).type
            columns[name] = table[name] if there else pa.nulls(table.num_rows, kind)
    for name in ("audio_path", "video_path"):
        if name in columns and columns[name].null_count == table.num_rows:
            warn(f"{source}: has no {name}, which the chain was trained with")
    tree = json.loads(known.schema.metadata[METADATA_KEY])
    return pa.table(columns).replace_schema_metadata({METADATA_KEY: json.dumps(tree)})


def _speaker_index(
    table: pa.Table,
    known: pa.Table,
    config: DataConfig,
    num_speakers: int,
    source: str,
    warn: Callable[[str], None],
) -> np.ndarray:
    """[N] int32: by name where the chain knows names, else by the order of turns. What has no index
    of its own shares the last one."""
    if config.speakers == "name":
        train = known.filter(pc.equal(known["split"], "train"))
        names = sorted(pc.unique(train["speaker"]).to_pylist())
        index = pc.fill_null(pc.index_in(table["speaker"], value_set=pa.array(names)), len(names))
        found = index.to_numpy().astype(np.int32)
        unknown = len(pc.unique(table["speaker"].filter(pc.equal(index, len(names)))))
        if unknown:
            warn(f"{source}: {unknown} speakers are not in train; they share one index")
    else:
        found, number = number_speakers(table, config.speakers, source)
        if number > num_speakers:
            warn(
                f"{source}: conversations of {number} speakers, and the chain has seen "
                f"{num_speakers} at most; the others share the last index"
            )
    return np.asarray(np.minimum(found, num_speakers - 1))
