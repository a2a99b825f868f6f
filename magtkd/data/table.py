"""A corpus: one validated table of conversations, its labels and its fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from magtkd.config import nearest
from magtkd.data.checks import check_content
from magtkd.data.columns import (
    FEATURES,
    MODALITIES,
    SCHEMA,
    SPLITS,
    conform,
    feature_matrix,
    feature_widths,
)
from magtkd.errors import and_more, shorten

__all__ = [
    "MODALITIES",
    "SCHEMA",
    "SPLITS",
    "Corpus",
    "fingerprint",
    "make_corpus",
    "sort_table",
    "validate_table",
]


_MONTH = "(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
# Errors of formulas, and numbers such as 11/16 that were taken for dates.
_OF_A_SPREADSHEET = (
    rf"^(#(NAME|REF|VALUE|DIV/0|N/A|NULL|NUM)[?!]?|[0-9]{{1,2}}-{_MONTH}|{_MONTH}-[0-9]{{2,4}})$"
)


@dataclass(frozen=True)
class Corpus:
    """A table of conversations that passed every check.

    `table` has the schema's columns that the source has, sorted by split (train, dev, test),
    dialogue and utterance; `labels` are those of train, sorted; `fingerprint` is a SHA-256 that
    changes exactly when the content does; `source` is a path or `synthetic`; `media` is the folder
    that the clips' paths are relative to.
    """

    table: pa.Table
    labels: tuple[str, ...]
    fingerprint: str
    source: str
    warnings: tuple[str, ...] = ()
    media: Path | None = None


def make_corpus(table: pa.Table, source: str, warnings: Sequence[str] = ()) -> Corpus:
    """Validate a table and describe it; `warnings` are those of its reader.

    Raises:
        DataError: as `validate_table`.
    """
    valid = validate_table(table, source)
    train = valid.filter(pc.equal(valid["split"], "train"))
    labels = tuple(sorted(pc.drop_null(pc.unique(train["label"])).to_pylist()))
    notes = (*warnings, *_ignored(table), *_notes(valid, train, labels))
    return Corpus(valid, labels, fingerprint(valid), source, notes)


def validate_table(table: pa.Table, source: str) -> pa.Table:
    """The table in the schema's types and order, sorted by split, dialogue and utterance.

    Args:
        table: at least the schema's required columns; others than the schema's are left out.
        source: what leads an error message, such as the path.

    Raises:
        DataError: a column is missing or of another type; the table is empty or has no train; a
            split name is unknown; an utterance is duplicated; a conversation is in two splits;
            features are missing or not finite; train or dev has no label at all; dev or test has
            a label that train lacks.
    """
    conformed = conform(table, source)
    check_content(conformed, source)
    return sort_table(conformed)


def sort_table(table: pa.Table) -> pa.Table:
    """Rows by split (train, dev, test), dialogue and utterance, in one chunk."""
    rank = pc.index_in(table["split"], value_set=pa.array(SPLITS))
    keys = pa.table([rank, table["dialogue_id"], table["utterance_id"]], ["0", "1", "2"])
    order = pc.sort_indices(keys, sort_keys=[(name, "ascending") for name in keys.column_names])
    return table.take(order).combine_chunks()


def fingerprint(table: pa.Table) -> str:
    """SHA-256 of a validated table's content, whatever file, order or compression it came from."""
    digest = hashlib.sha256(f"{table.num_rows}".encode())
    for name in table.column_names:
        digest.update(f"|{name}:{table.schema.field(name).type}|".encode())
        for part in _bytes_of(table, name):
            digest.update(part)
    return digest.hexdigest()


def _bytes_of(table: pa.Table, name: str) -> Iterator[memoryview | bytes]:
    """A column's values as bytes that depend on nothing but the values."""
    modality = name.removesuffix("_features")
    if FEATURES.get(modality) == name:
        yield np.ascontiguousarray(feature_matrix(table, modality)).data.cast("B")
        return
    array = table.column(name).combine_chunks()
    yield np.packbits(pc.is_valid(array).to_numpy(zero_copy_only=False)).tobytes()
    if array.type == pa.string():
        filled = pc.fill_null(array, "")
        yield pc.binary_length(filled).to_numpy().tobytes()
        yield "".join(filled.to_pylist()).encode()
    else:
        yield pc.fill_null(array, 0).to_numpy().tobytes()


def _ignored(table: pa.Table) -> Iterator[str]:
    for name in table.column_names:
        if name not in SCHEMA.names:
            absent = [known for known in SCHEMA.names if known not in table.column_names]
            yield (
                f"column {shorten(name)!r} is not in the schema and is "
                f"ignored{nearest(name, absent)}"
            )


def _notes(table: pa.Table, train: pa.Table, labels: tuple[str, ...]) -> Iterator[str]:
    splits = pc.unique(table["split"]).to_pylist()
    if "dev" not in splits:
        yield "no dev split; one is carved out of train, by conversation"
    if "test" not in splits:
        yield "no test split; there will be nothing to reveal"
    if len(labels) == 1:
        yield f"train has a single label, {shorten(labels[0])!r}; there is nothing to classify"
    num_unlabelled = table["label"].null_count
    if num_unlabelled:
        yield (
            f"{num_unlabelled} of {table.num_rows} utterances have no label; they are context, in "
            "no loss and no metric"
        )
        is_test = pc.equal(table["split"], "test")
        if "test" in splits and not pc.count(table["label"].filter(is_test)).as_py():
            yield "no utterance of test has a label; there will be nothing to reveal"
    num_empty = pc.sum(pc.equal(pc.utf8_trim_whitespace(table["text"]), "")).as_py()
    if num_empty:
        yield f"{num_empty} of {table.num_rows} utterances have no text"
    texts = pc.utf8_trim_whitespace(table["text"])
    damaged = pc.unique(texts.filter(pc.match_substring_regex(texts, _OF_A_SPREADSHEET)))
    if len(damaged):
        shown = and_more(damaged.to_pylist(), 5)
        yield f"texts that a spreadsheet seems to have changed: {shown}; look them up"
    num_lost = pc.sum(pc.match_substring(table["text"], "\ufffd")).as_py()
    if num_lost:
        yield f"{num_lost} texts have U+FFFD in place of a character that was lost"
    for modality in feature_widths(train):
        values = feature_matrix(train, modality)
        num_constant = int((values.min(axis=0) == values.max(axis=0)).sum())
        if num_constant:
            name = FEATURES[modality]
            yield f"{name}: {num_constant} of {values.shape[1]} columns are constant on train"
