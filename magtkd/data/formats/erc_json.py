"""Conversations as JSON, a file a split: the form in which DialogXL, DAG-ERC and SPCL take their
data sets (`train_data.json`, `train_data_roberta.json.feature`).

A file is a list of conversations, each a list of utterances with `text`, `speaker`, `label`, which
an utterance that is context alone lacks, and in DAG-ERC's files `cls`, its features.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from magtkd.data.columns import SPLITS, features_column
from magtkd.data.formats.conversion import Conversion, Options, make_table
from magtkd.data.formats.repair import Repairs, repair_text
from magtkd.errors import DataError, shorten

__all__ = ["find_erc_json", "read_erc_json"]

_FILE = re.compile(r"(train|dev|test)_data\w*\.json(?:\.feature)?")
_WHERE = "take the file as it was distributed"


def find_erc_json(source: Path) -> str | None:
    """Which of the files are in a folder; None where the train file is not."""
    files = _files(source)
    return ", ".join(path.name for path in files.values()) if "train" in files else None


def read_erc_json(source: Path, options: Options) -> Conversion:
    """The table of the files in a folder.

    Raises:
        DataError: there is no train file, two files are of one split, one cannot be read or is not
            of this form, or some utterances alone have features.
    """
    files = _files(source)
    if "train" not in files:
        raise DataError(f"{source}: has no train_data.json; give its folder")
    rows: list[dict[str, Any]] = []
    features: list[Any] = []
    repairs = Repairs()
    for split in SPLITS:
        for number, conversation in enumerate(_read(files[split]) if split in files else ()):
            for index, utterance in enumerate(conversation):
                place = f"{files[split]}: conversation {number}, utterance {index}"
                if not isinstance(utterance, dict):
                    raise DataError(f"{place}: it is no object; {_WHERE}")
                label = utterance.get("label")
                row = {
                    "split": split,
                    "dialogue_id": f"{split}/{number}",
                    "utterance_id": index,
                    "speaker": repair_text(_text(utterance, "speaker", place)).strip(),
                    "text": repairs.text(_text(utterance, "text", place)).strip(),
                    "label": _text(utterance, "label", place).strip().lower() if label else None,
                }
                rows.append(row)
                features.append(utterance.get("cls"))
    table = make_table(rows, source)
    if any(vector is not None for vector in features):
        table = table.append_column("text_features", features_column(_matrix(features, source)))
    notes = [*(f"no {split} file" for split in SPLITS if split not in files), *repairs.notes()]
    return Conversion(table, len(rows), notes=notes)


def _files(source: Path) -> dict[str, Path]:
    if not os.path.isdir(source):
        return {}
    found: dict[str, Path] = {}
    for name in sorted(os.listdir(source)):
        match = _FILE.fullmatch(name)
        if match is not None and found.setdefault(match[1], source / name).name != name:
            raise DataError(f"{source}: {name} and {found[match[1]].name}: keep one")
    return found


def _read(path: Path) -> list[list[Any]]:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; check the release") from None
    except (ValueError, RecursionError):  # UnicodeDecodeError too
        raise DataError(f"{path}: not JSON; {_WHERE}") from None
    if not isinstance(content, list) or not all(isinstance(one, list) for one in content):
        raise DataError(f"{path}: no list of conversations, which are lists; {_WHERE}")
    return content


def _text(utterance: dict[str, Any], name: str, place: str) -> str:
    value = utterance.get(name)
    if not isinstance(value, str):
        raise DataError(f"{place}: {name}: {shorten(ascii(value))} is not text; {_WHERE}")
    return value


def _matrix(features: list[Any], source: Path) -> np.ndarray[Any, np.dtype[np.float32]]:
    try:
        with np.errstate(over="ignore"):  # what float32 cannot hold is refused as not finite
            matrix = np.array(features, np.float32)
    except (TypeError, ValueError, OverflowError):
        matrix = np.empty(0, np.float32)
    if matrix.ndim != 2 or not matrix.size:
        raise DataError(
            f"{source}: cls: not every utterance has as many numbers, so that they are no "
            f"features; {_WHERE}"
        )
    return matrix
