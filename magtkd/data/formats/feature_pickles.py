"""The field's files of ready-made features, as tables.

The pickles of COSMIC, MMGCN and SDT, and of MAGTKD's first stage; `feature_layouts` and
`first_stage` describe what they hold.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from magtkd.data.columns import FEATURES, features_column
from magtkd.data.formats.conversion import Conversion, Options, make_table, refuse_unused, settle
from magtkd.data.formats.feature_layouts import (
    Layout,
    column,
    describe,
    find_layout,
    is_id,
    matrix,
    numbers,
    speaker_name,
    unfinished,
)
from magtkd.data.formats.first_stage import (
    KEYS,
    first_stage_files,
    is_first_stage,
    load_first_stage,
    read_first_stage,
    split_of,
)
from magtkd.data.formats.labels import FOUR_CLASSES, FOUR_NOTE, ORDERS, label_names
from magtkd.data.formats.pickles import read_pickle
from magtkd.data.formats.repair import Repairs
from magtkd.errors import DataError, shorten

__all__ = ["TEXT_CHOICES", "find_features", "read_features"]

TEXT_CHOICES = ("roberta1", "roberta2", "roberta3", "roberta4", "mean", "concat")
_SUFFIXES = {".p", ".pickle", ".pkl", ".pt"}
Matrix = npt.NDArray[np.float32]


def find_features(source: Path) -> str | None:
    """A pickle, by its name, or a folder with files of the first stage; None for anything else."""
    files = first_stage_files(source)
    if files:
        return ", ".join(path.name for path in files.values())
    return "a pickle" if source.suffix in _SUFFIXES and os.path.isfile(source) else None


def read_features(source: Path, options: Options) -> Conversion:
    """The table of a file of features, or of a folder with the first stage's three.

    Utterances whose features are not finite are missing ones, in the sense of `options`.

    Raises:
        DataError: the file is refused, of another layout, or its fields do not fit each other; or
            an option is chosen that has no meaning for it.
    """
    conversion = _read(source, options)
    return _as_four(conversion) if options.classes == 4 else conversion


def _read(source: Path, options: Options) -> Conversion:
    files = first_stage_files(source)
    content: Any = None if files else read_pickle(source)
    if files or is_first_stage(content):
        used = {"on_missing", "labels", "classes", "distilled"}
        refuse_unused(options, used, f"{source}: features of the first stage")
        split = split_of(source.name) or "train"
        contents = load_first_stage(files) if files else {split: content}
        return read_first_stage(contents, options, source)
    layout = find_layout(content)
    if layout is None:
        raise DataError(
            f"{source}: {describe(content)}; known are the tuples of SDT, MMGCN and COSMIC and a "
            f"dictionary of {', '.join(KEYS)}"
        )
    used = {"on_missing", "text", "labels", "classes"}
    refuse_unused(options, used, f"{source}: features in {layout.name} layout")
    return _read_tuple(content, layout, options, source)


def _as_four(conversion: Conversion) -> Conversion:
    """The same with IEMOCAP's four classes, where it has the six; else as it is."""
    table = conversion.table
    before = table["label"].to_pylist()
    if not set(before) <= set(ORDERS["iemocap"]):
        return conversion
    labels = pa.array([FOUR_CLASSES.get(name, name) for name in before], pa.string())
    table = table.set_column(table.schema.get_field_index("label"), "label", labels)
    return replace(
        conversion,
        table=table.filter(pc.is_valid(labels)),
        dropped={**conversion.dropped, "label frustrated": labels.null_count},
        notes=(*conversion.notes, FOUR_NOTE),
    )


def _read_tuple(
    content: Sequence[Any], layout: Layout, options: Options, source: Path
) -> Conversion:
    fields: dict[str, Any] = dict(zip(layout.fields, content, strict=False))
    splits, dev_note = _splits(fields, source)
    labels = {key: numbers(fields["labels"], "labels", key, source) for key in fields["labels"]}
    there = [number for key in splits for number in labels[key]]
    names, label_note = label_names(there, options.labels, ORDERS, _by_count(fields), str(source))
    repairs = Repairs()
    rows = [
        row
        for key, split in splits.items()
        for row in _rows(
            fields, key, split, [names[number] for number in labels[key]], source, repairs
        )
    ]
    lengths = {key: len(labels[key]) for key in splits}
    features, text_note = _features(fields, lengths, options, source)
    table = make_table(rows, source)
    for modality, values in features.items():
        table = table.append_column(FEATURES[modality], features_column(values))
    missing = unfinished(features, rows, options, source)
    table, num_dropped = settle(table, missing, options, source)
    left = [key for key in labels if key not in splits]
    num_left = sum(len(labels[key]) for key in left)
    return Conversion(
        table,
        len(rows) + num_left,
        {"in no split": num_left, "features that are not finite": num_dropped},
        {
            "conversations in no split": [str(key) for key in left],
            "features not finite": [*missing.values()],
        },
        (
            f"{layout.name} layout of {len(content)} fields",
            label_note,
            text_note,
            dev_note,
            *repairs.notes(),
        ),
    )


def _by_count(fields: Mapping[str, Any]) -> dict[int, str]:
    # COSMIC's ten fields may be EmoryNLP's as well, which has seven labels as MELD has.
    has_media_or_sentiments = "audio" in fields or "sentiments" in fields
    return {6: "iemocap", 7: "meld"} if has_media_or_sentiments else {6: "iemocap"}


def _splits(fields: Mapping[str, Any], source: Path) -> tuple[dict[Any, str], str]:
    """The split of each conversation that is in one, in their order, and a word on dev."""
    dev = _dev_ids(fields)
    ids = {
        "train": [key for key in fields["train"] if key not in dev],
        "dev": dev,
        "test": [*fields["test"]],
    }
    splits: dict[Any, str] = {}
    for split, keys in ids.items():
        for key in keys:
            if key in splits or key not in fields["labels"]:
                other = f"in {splits[key]} too" if key in splits else "without labels"
                raise DataError(f"{source}: conversation {key} of {split} is {other}; repair it")
            splits[key] = split
    if not dev:
        return splits, "no dev ids; some of train's conversations become dev in training"
    return splits, f"dev: the file's own {len(dev)} conversations"


def _dev_ids(fields: Mapping[str, Any]) -> list[Any]:
    rest = fields.get("rest")
    if not isinstance(rest, list | tuple | set | frozenset | np.ndarray):
        return []
    is_ids = all(is_id(key) and key in fields["labels"] for key in rest)
    leaves_train = any(key not in set(rest) for key in fields["train"]) if is_ids else False
    return [*rest] if leaves_train and not {*rest} & {*fields["test"]} else []


def _rows(
    fields: Mapping[str, Any],
    key: Any,
    split: str,
    labels: Sequence[str],
    source: Path,
    repairs: Repairs,
) -> Iterator[dict[str, Any]]:
    texts, speakers = (
        column(fields[name], name, key, source) for name in ("sentences", "speakers")
    )
    for name, values in (("sentences", texts), ("speakers", speakers)):
        if len(values) != len(labels):
            raise DataError(
                f"{source}: conversation {key}: {len(labels)} labels but {len(values)} {name}; "
                "fetch the file again"
            )
    for index, label in enumerate(labels):
        yield {
            "split": split,
            "dialogue_id": str(key),
            "utterance_id": index,
            "speaker": speaker_name(speakers[index], str(key), source),
            "text": repairs.text(str(texts[index])).strip(),
            "label": label,
        }


def _features(
    fields: Mapping[str, Any], lengths: Mapping[Any, int], options: Options, source: Path
) -> tuple[dict[str, Matrix], str]:
    names = [name for name in fields if re.fullmatch(r"text\d", name)]
    texts = [matrix(fields[name], name, lengths, source) for name in names]
    text, note = _choose_text(texts, options.text, source)
    others = {
        name: matrix(fields[name], name, lengths, source)
        for name in ("audio", "video")
        if name in fields
    }
    return {"text": text, **others}, note


def _choose_text(texts: list[Matrix], choice: str | None, source: Path) -> tuple[Matrix, str]:
    if len(texts) == 1:
        if choice is not None:
            raise DataError(
                f"{source}: --text {shorten(choice)}: it has one text feature; leave --text out"
            )
        return texts[0], "one text feature"
    if choice is not None and choice not in TEXT_CHOICES:
        raise DataError(f"{source}: --text {shorten(choice)}: choose {', '.join(TEXT_CHOICES)}")
    choice = choice or "roberta1"
    if choice == "concat":
        return np.concatenate(texts, axis=1), "text features: all four, side by side"
    if choice == "mean":
        return np.mean(texts, axis=0, dtype=np.float32), "text features: the mean of all four"
    return texts[TEXT_CHOICES.index(choice)], f"text features: {choice}"
