"""What is checked of a table's content, one function a rule.

Each takes a table whose columns conform to the schema and raises `DataError` with one line: the
place, the value and the way out.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from magtkd.data.columns import (
    FEATURES,
    REQUIRED,
    SPLITS,
    codes_of,
    feature_matrix,
    feature_widths,
)
from magtkd.errors import DataError, and_more, shorten

__all__ = ["check_content", "check_new"]


def check_content(table: pa.Table, source: str) -> None:
    """Run every check.

    Raises:
        DataError: the first rule that the table breaks.
    """
    _check_not_empty(table, source)
    _check_nothing_missing(table, source)
    _check_splits(table, source)
    _check_duplicates(table, source)
    _check_one_split_each(table, source)
    _check_modalities(table, source)
    _check_features(table, source)
    _check_labels(table, source)


def check_new(table: pa.Table, source: str) -> None:
    """Check conversations without splits and labels, which a trained chain gets.

    Raises:
        DataError: the first rule that the table breaks.
    """
    _check_not_empty(table, source)
    _check_nothing_missing(table, source)
    _check_duplicates(table, source)
    _check_modalities(table, source)
    _check_features(table, source)


def _place(table: pa.Table, row: int) -> str:
    split, dialogue, utterance = (table.column(name)[row].as_py() for name in REQUIRED[:3])
    return f"split {split}, dialogue {shorten(dialogue)}, utterance {utterance}"


def _check_not_empty(table: pa.Table, source: str) -> None:
    if table.num_rows == 0:
        raise DataError(f"{source}: the table is empty; it needs at least train utterances")


def _check_nothing_missing(table: pa.Table, source: str) -> None:
    for name in REQUIRED[:-1]:  # an utterance without a label is context
        missing = pc.is_null(table.column(name))
        count = pc.sum(missing).as_py()
        if count:
            first = int(pc.index(missing, True).as_py())
            raise DataError(
                f"{source}: column {name}: {count} of {table.num_rows} values are missing, first "
                f"in row {first + 1}; fill them in or drop these rows"
            )


def _check_splits(table: pa.Table, source: str) -> None:
    given = pc.unique(table.column("split")).to_pylist()
    unknown = [split for split in given if split not in SPLITS]
    if unknown:
        raise DataError(
            f"{source}: column split: {shorten(unknown[0])!r} is unknown; rename it to one of "
            f"{', '.join(SPLITS)}"
        )
    if "train" not in given:
        raise DataError(f"{source}: has no train split, only {and_more(given, 3)}; add one")


def _check_duplicates(table: pa.Table, source: str) -> None:
    columns = [codes_of(table.column(name)) for name in REQUIRED[:3]]
    order = np.lexsort(columns[::-1])
    same = np.ones(len(order) - 1, dtype=bool)
    for codes in columns:
        same &= codes[order][1:] == codes[order][:-1]
    if same.any():
        first = int(order[1:][same].min())
        raise DataError(
            f"{source}: {_place(table, first)} is there more than once "
            f"({int(same.sum())} duplicates in all); number the utterances of each dialogue"
        )


def _check_one_split_each(table: pa.Table, source: str) -> None:
    pairs = table.group_by(["dialogue_id", "split"]).aggregate([])
    counts = pairs.group_by("dialogue_id").aggregate([("split", "count")])
    torn = counts.filter(pc.greater(counts["split_count"], 1))["dialogue_id"].to_pylist()
    if torn:
        dialogue = min(torn)
        splits = pairs.filter(pc.equal(pairs["dialogue_id"], dialogue))["split"].to_pylist()
        names = sorted(splits, key=SPLITS.index)
        raise DataError(
            f"{source}: dialogue {shorten(dialogue)} is in {' and '.join(names)} ({len(torn)} such "
            "dialogues); if they are different ones, make dialogue_id unique, such as "
            f"{names[0]}/{shorten(dialogue)}"
        )


def _check_modalities(table: pa.Table, source: str) -> None:
    has_text = pc.any(pc.greater(pc.utf8_length(pc.utf8_trim_whitespace(table["text"])), 0)).as_py()
    if not has_text and not feature_widths(table):
        raise DataError(
            f"{source}: has neither text nor features; fill in text or add one of "
            f"{', '.join(FEATURES.values())}"
        )


def _check_features(table: pa.Table, source: str) -> None:
    problems = []
    for modality in feature_widths(table):
        bad = ~np.isfinite(feature_matrix(table, modality)).all(axis=1)
        if bad.any():
            where = _place(table, int(bad.argmax()))
            problems.append(f"{FEATURES[modality]} of {int(bad.sum())} utterances (first: {where})")
    if problems:
        raise DataError(
            f"{source}: missing or non-finite values in {'; '.join(problems)}; "
            "fill them in, or drop these utterances or the column"
        )


def _check_labels(table: pa.Table, source: str) -> None:
    labelled = table.filter(pc.is_valid(table.column("label")))
    for split in ("train", "dev"):
        num_rows = pc.sum(pc.equal(table.column("split"), split)).as_py()
        if num_rows and not pc.any(pc.equal(labelled.column("split"), split)).as_py():
            raise DataError(
                f"{source}: column label: none of the {num_rows} utterances of {split} has a "
                f"label, so there is nothing to {'learn' if split == 'train' else 'choose'} by; "
                f"fill in those that are known{'' if split == 'train' else ', or drop the split'}"
            )
    is_train = pc.equal(table.column("split"), "train")
    known = pc.drop_null(pc.unique(table.column("label").filter(is_train)))
    is_known = pc.is_in(table.column("label"), value_set=known)
    unseen = pc.and_(pc.is_valid(table.column("label")), pc.invert(is_known))
    count = pc.sum(unseen).as_py()
    if count:
        first = int(pc.index(unseen, True).as_py())
        label = table.column("label")[first].as_py()
        raise DataError(
            f"{source}: label {shorten(label)!r} at {_place(table, first)} does not occur in train "
            f"({count} such utterances); merge, drop or move them"
        )
