"""What the `data` stage does: carve dev, standardise on train, number labels and speakers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from magtkd.config import DataConfig
from magtkd.data.columns import (
    FEATURES,
    NO_LABEL,
    feature_matrix,
    feature_widths,
    features_column,
)
from magtkd.data.speakers import number_speakers
from magtkd.data.table import Corpus, sort_table
from magtkd.errors import DataError

__all__ = ["Metadata", "prepare", "read_metadata", "standardise"]

METADATA_KEY = b"magtkd"
# Conversations that are compared for each place in dev: many stratify better, fewer vary more.
NUM_CANDIDATES = 32
# Spread below this share of a column's largest value is float32's rounding, not a signal.
CONSTANT_SPREAD = 1e-6


@dataclass(frozen=True)
class Metadata:
    """What a prepared table has in its metadata: `labels` by their index, the number of distinct
    speaker indices, the modalities that can be used, the width of those with features, and where
    these were standardised, what was subtracted from each column and what it was divided by."""

    labels: tuple[str, ...]
    num_speakers: int
    modalities: tuple[str, ...]
    features: dict[str, int]
    scales: dict[str, tuple[list[float], list[float]]] | None = None
    """None where an earlier version has prepared the table."""


def read_metadata(table: pa.Table) -> Metadata:
    """The metadata of a prepared table."""
    tree = json.loads(table.schema.metadata[METADATA_KEY])
    return Metadata(
        labels=tuple(tree["labels"]),
        num_speakers=tree["num_speakers"],
        modalities=tuple(tree["modalities"]),
        features=dict(tree["features"]),
        scales=tree.get("scales"),
    )


def prepare(corpus: Corpus, config: DataConfig, seed: int) -> pa.Table:
    """The table that all stages train on.

    Columns: split, dialogue_id, utterance_id, speaker, text, label (int32, index in the metadata's
    labels, `NO_LABEL` where there is none), speaker_index (int32), and the `*_features` that the
    corpus has, standardised if `config.standardise`: mean 0 and standard deviation 1 on train,
    columns constant there 0 everywhere. Where there are clips: audio_path, video_path, start and
    end. Rows are sorted by split, dialogue and utterance. `read_metadata` reads the rest.

    Args:
        corpus: validated conversations.
        config: how much of train becomes dev, and how speakers are numbered.
        seed: decides which conversations become dev where the corpus has none.

    Raises:
        DataError: train has too few conversations to give some to dev, or a speaker's name has no
            number where the configuration asks for the published ones.
    """
    table = corpus.table
    if not pc.any(pc.equal(table["split"], "dev")).as_py():
        table = _carve_dev(corpus, config.dev_fraction, seed)
    speaker_index, num_speakers = number_speakers(table, config.speakers, corpus.source)
    label = pc.index_in(table["label"], value_set=pa.array(corpus.labels))
    names = ["split", "dialogue_id", "utterance_id", "speaker", "text"]
    columns = {name: table[name] for name in names}
    columns["label"] = pc.fill_null(label, NO_LABEL).cast(pa.int32())
    columns["speaker_index"] = pa.array(speaker_index, pa.int32())
    widths = feature_widths(table)
    is_train = pc.equal(table["split"], "train").to_numpy()
    scales: dict[str, tuple[list[float], list[float]]] = {}
    for modality in widths:
        values = feature_matrix(table, modality)
        if config.standardise:
            mean, deviation = scales[modality] = _scale(values, is_train)
            values = standardise(values, mean, deviation)
        columns[FEATURES[modality]] = features_column(values)
    if any(table[name].null_count < len(table) for name in _paths(table)):
        columns |= {name: table[name] for name in (*_paths(table), *_times(table))}
    metadata = Metadata(corpus.labels, num_speakers, _modalities(table), widths, scales)
    return pa.table(columns).replace_schema_metadata({METADATA_KEY: json.dumps(asdict(metadata))})


def _paths(table: pa.Table) -> list[str]:
    return [name for name in ("audio_path", "video_path") if name in table.column_names]


def _times(table: pa.Table) -> list[str]:
    return [name for name in ("start", "end") if name in table.column_names]


def _modalities(table: pa.Table) -> tuple[str, ...]:
    widths = feature_widths(table)
    has_text = pc.any(pc.not_equal(pc.utf8_trim_whitespace(table["text"]), "")).as_py()
    return tuple(name for name in FEATURES if name in widths or (name == "text" and has_text))


def _scale(
    values: npt.NDArray[np.float32], is_train: npt.NDArray[np.bool_]
) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each column on train; 0 where it is constant there."""
    wide = values.astype(np.float64)
    mean = wide[is_train].mean(axis=0)
    deviation = wide[is_train].std(axis=0)
    is_constant = deviation <= CONSTANT_SPREAD * np.abs(wide).max(axis=0)
    return mean.tolist(), np.where(is_constant, 0.0, deviation).tolist()


def standardise(
    values: npt.NDArray[np.float32], mean: Sequence[float], deviation: Sequence[float]
) -> npt.NDArray[np.float32]:
    """Columns [N, F] to mean 0 and standard deviation 1 on train; those constant there to 0."""
    divisor = np.array(deviation)
    is_constant = divisor == 0
    scaled = (values.astype(np.float64) - np.array(mean)) / np.where(is_constant, 1.0, divisor)
    return np.where(is_constant, 0.0, scaled).astype(np.float32)


def _carve_dev(corpus: Corpus, fraction: float, seed: int) -> pa.Table:
    table = corpus.table
    is_train = pc.equal(table["split"], "train")
    train = table.filter(is_train)
    dialogues = train["dialogue_id"].combine_chunks().dictionary_encode()
    label = pc.index_in(train["label"], value_set=pa.array(corpus.labels)).to_numpy()
    counts = np.zeros((len(dialogues.dictionary), len(corpus.labels)))
    labelled = np.isfinite(label)  # where labels are missing, Arrow gives floats
    rows = dialogues.indices.to_numpy()[labelled]
    np.add.at(counts, (rows, label[labelled].astype(np.int64)), 1)
    chosen = _choose_dev(counts, fraction, np.random.default_rng(seed))
    if not chosen:
        raise DataError(
            f"{corpus.source}: has no dev split, and its {len(counts)} train conversations cannot "
            "give one to it and keep every label; add a dev split"
        )
    moved = pc.is_in(table["dialogue_id"], value_set=dialogues.dictionary.take(pa.array(chosen)))
    split = pc.if_else(pc.and_(is_train, moved), "dev", table["split"])
    return sort_table(table.set_column(0, "split", split))


def _choose_dev(
    counts: npt.NDArray[np.float64], fraction: float, generator: np.random.Generator
) -> list[int]:
    """Conversations for dev, one after another, each the best of some drawn at random.

    Best is what brings dev's label counts closest (chi-square) to train's, in proportion; what
    would take the last utterances of a label out of train is never chosen, nor what has no label.

    Args:
        counts: utterances by conversation and label, [conversations, labels].
        fraction: share of the conversations to choose.
    """
    num_dev = min(max(1, round(fraction * len(counts))), len(counts) - 1)
    total = counts.sum(axis=0)
    taken = np.zeros_like(total)
    chosen: list[int] = []
    remaining = generator.permutation(len(counts))
    remaining = remaining[counts[remaining].any(axis=1)]
    for place in range(num_dev):
        remaining = remaining[(total - taken - counts[remaining] > 0).all(axis=1)]
        if not len(remaining):
            break
        candidates = generator.choice(remaining, min(NUM_CANDIDATES, len(remaining)), replace=False)
        target = total * (place + 1) / len(counts)
        distance = ((taken + counts[candidates] - target) ** 2 / target).sum(axis=1)
        best = int(candidates[distance.argmin()])
        chosen.append(best)
        taken += counts[best]
        remaining = remaining[remaining != best]
    return chosen
