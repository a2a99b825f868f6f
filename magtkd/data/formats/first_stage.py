"""What MAGTKD's first stage writes: one dictionary a split, by conversation.

Keys: `text`, `audio`, `video` (students that learned alone), `audio_kd`, `video_kd` (students that
were taught), `speakers`, `labels` (numbered alphabetically), `vids` (the conversations, in order),
`dia2utt` (numbers of each conversation's utterances). It has no sentences.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from magtkd.data.columns import FEATURES, SPLITS, features_column
from magtkd.data.formats.conversion import Conversion, Options, make_table, settle
from magtkd.data.formats.feature_layouts import (
    column,
    is_id,
    matrix,
    numbers,
    speaker_name,
    unfinished,
)
from magtkd.data.formats.labels import ALPHABETICAL, label_names
from magtkd.data.formats.pickles import read_pickle
from magtkd.errors import DataError

__all__ = [
    "KEYS",
    "first_stage_files",
    "is_first_stage",
    "load_first_stage",
    "read_first_stage",
    "split_of",
]

KEYS = ("text", "audio", "video", "speakers", "labels", "vids", "dia2utt")
TAUGHT = {"audio": "audio_kd", "video": "video_kd"}
_SPLIT = re.compile(r"(?:^|[_.\-])(train|dev|valid|test)(?=[_.\-])")
Contents = dict[str, Mapping[str, Any]]


def first_stage_files(source: Path) -> dict[str, Path]:
    """The first stage's files in a folder, by the split in their names.

    Raises:
        DataError: two are of one split.
    """
    files: dict[str, Path] = {}
    names = sorted(os.listdir(source)) if os.path.isdir(source) else []
    for name in names:
        if name.startswith("first_stage_") and name.endswith(".pkl"):
            split = split_of(name)
            if split and files.setdefault(split, source / name).name != name:
                raise DataError(f"{source}: {name} and {files[split].name}: keep one")
    return files


def split_of(name: str) -> str | None:
    """The split in a file's name; None where there is none."""
    found = _SPLIT.findall(name.lower())
    return found[0].replace("valid", "dev") if found else None


def is_first_stage(content: Any) -> bool:
    """Whether a pickle's content is the first stage's."""
    return isinstance(content, Mapping) and all(key in content for key in KEYS)


def read_first_stage(contents: Contents, options: Options, source: Path) -> Conversion:
    """The table of the first stage's files.

    Args:
        contents: what the files hold, by split.

    Raises:
        DataError: they lack the students that were asked for, or their fields do not fit.
    """
    contents = {split: contents[split] for split in SPLITS if split in contents}
    names_of = {
        modality: TAUGHT.get(modality, modality) if options.distilled else modality
        for modality in FEATURES
    }
    for split, content in contents.items():
        absent = [name for name in names_of.values() if name not in content]
        if absent:
            raise DataError(
                f"{source}: {split} lacks {absent[0]}; choose --no-distilled for the students that "
                "learned alone"
            )
    labels = {split: _labels(content, source) for split, content in contents.items()}
    there = [number for by_key in labels.values() for part in by_key.values() for number in part]
    by_count = {len(names): data_set for data_set, names in ALPHABETICAL.items()}
    names, how = label_names(there, options.labels, ALPHABETICAL, by_count, str(source))
    rows = [
        row
        for split, content in contents.items()
        for key, part in labels[split].items()
        for row in _rows(content, split, key, [names[number] for number in part], source)
    ]
    table = make_table(rows, source)
    features = {}
    for modality, name in names_of.items():
        features[modality] = _join(contents, labels, name, source)
        table = table.append_column(FEATURES[modality], features_column(features[modality]))
    missing = unfinished(features, rows, options, source)
    table, num_dropped = settle(table, missing, options, source)
    students = "taught by the teacher" if options.distilled else "that learned alone"
    return Conversion(
        table,
        len(rows),
        {"features that are not finite": num_dropped},
        {"features not finite": [*missing.values()]},
        (how, f"audio and video features are of the students {students}"),
    )


def load_first_stage(files: Mapping[str, Path]) -> Contents:
    """What the files hold.

    Raises:
        DataError: one cannot be read or is another dictionary.
    """
    contents = {split: read_pickle(path) for split, path in files.items()}
    for split, content in contents.items():
        if not is_first_stage(content):
            raise DataError(f"{files[split]}: not the first stage's: it needs {', '.join(KEYS)}")
    return contents


def _labels(content: Mapping[str, Any], source: Path) -> dict[Any, list[int]]:
    """The labels of each conversation, in the order of `vids`."""
    keys = content["vids"]
    keys = keys.tolist() if hasattr(keys, "tolist") else keys
    if not isinstance(keys, list | tuple) or not all(is_id(key) for key in keys):
        raise DataError(f"{source}: vids is no list of conversations; write it again")
    if len(set(keys)) < len(keys):
        raise DataError(f"{source}: vids has a conversation more than once; write it again")
    return {key: numbers(content["labels"], "labels", key, source) for key in keys}


def _rows(
    content: Mapping[str, Any], split: str, key: Any, labels: list[str], source: Path
) -> Iterator[dict[str, Any]]:
    speakers = column(content["speakers"], "speakers", key, source)
    places = numbers(content["dia2utt"], "dia2utt", key, source)
    counts = (len(labels), len(speakers), len(places))
    if len(set(counts)) > 1:
        raise DataError(
            f"{source}: conversation {key} has as many labels, speakers and dia2utt as {counts}; "
            "write it again"
        )
    for label, speaker, place in zip(labels, speakers, places, strict=True):
        yield {
            "split": split,
            "dialogue_id": f"{split}/{key}",
            "utterance_id": place,
            "speaker": speaker_name(speaker, str(key), source),
            "text": "",
            "label": label,
        }


def _join(
    contents: Contents, labels: Mapping[str, dict[Any, list[int]]], name: str, source: Path
) -> npt.NDArray[np.float32]:
    parts = []
    for split, content in contents.items():
        lengths = {key: len(part) for key, part in labels[split].items()}
        if lengths:
            parts.append(matrix(content[name], name, lengths, source))
    if len({part.shape[1] for part in parts}) > 1:
        raise DataError(f"{source}: {name} is as wide as {[part.shape[1] for part in parts]}")
    return np.concatenate(parts)
