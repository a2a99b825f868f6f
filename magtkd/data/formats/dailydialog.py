"""DailyDialog's text files (Li et al., IJCNLP 2017): a conversation a line, and its labels beside.

`train/dialogues_train.txt` has utterances that end with `__eou__`, `dialogues_emotion_train.txt` a
number for each; `validation` and `test` likewise. Two speakers take turns.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from magtkd.data.columns import SPLITS
from magtkd.data.formats.conversion import Conversion, Options, make_table
from magtkd.data.formats.repair import Repairs, decode_bytes
from magtkd.errors import DataError, shorten

__all__ = ["LABELS", "find_dailydialog", "read_dailydialog"]

LABELS = ("no emotion", "anger", "disgust", "fear", "happiness", "sadness", "surprise")
END = "__eou__"
_FOLDERS = {"train": "train", "dev": "validation", "test": "test"}


def find_dailydialog(source: Path) -> str | None:
    """Which splits are in a folder; None where train is not."""
    there = [split for split in SPLITS if os.path.isfile(_paths(source, split)[0])]
    return f"dialogues of {', '.join(there)}" if "train" in there else None


def read_dailydialog(source: Path, options: Options) -> Conversion:
    """The table of the release.

    Conversations with another number of labels than utterances, of which the release has some, are
    left out, as by its public loaders.

    Raises:
        DataError: a file is missing or cannot be read, its lines do not fit, or a label is none of
            the seven.
    """
    rows: list[dict[str, Any]] = []
    repairs = Repairs()
    num_odd = 0
    for split in SPLITS:
        texts, labels = (_lines(path) for path in _paths(source, split))
        if len(texts) != len(labels):
            raise DataError(
                f"{_paths(source, split)[1]}: {len(labels)} lines for {len(texts)} conversations; "
                "take the files as they were distributed"
            )
        for number, (text, numbers) in enumerate(zip(texts, labels, strict=True)):
            place = f"{_paths(source, split)[1]}, line {number + 1}"
            utterances = [part.strip() for part in text.split(END)[:-1]]
            names = [*_names(numbers, place)]
            if len(utterances) != len(names):
                num_odd += len(utterances)
                continue
            for index, (utterance, label) in enumerate(zip(utterances, names, strict=True)):
                rows.append(
                    {
                        "split": split,
                        "dialogue_id": f"{split}/{number}",
                        "utterance_id": index,
                        "speaker": "AB"[index % 2],
                        "text": repairs.text(utterance),
                        "label": label,
                    }
                )
    dropped = {"labels that do not fit their conversation": num_odd}
    return Conversion(
        make_table(rows, source), len(rows) + num_odd, dropped, notes=[*repairs.notes()]
    )


def _paths(source: Path, split: str) -> tuple[Path, Path]:
    name = _FOLDERS[split]
    folder = source / name
    return folder / f"dialogues_{name}.txt", folder / f"dialogues_emotion_{name}.txt"


def _lines(path: Path) -> list[str]:
    try:
        return decode_bytes(path.read_bytes()).strip().split("\n")
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read: {error.strerror}; unpack train.zip, validation.zip and "
            "test.zip beside each other"
        ) from None


def _names(numbers: str, place: str) -> Iterator[str]:
    for number in numbers.split():
        if number not in {str(index) for index in range(len(LABELS))}:
            raise DataError(
                f"{place}: {shorten(ascii(number))} is no label, which are 0 to {len(LABELS) - 1}; "
                "take the file as it was distributed"
            )
        yield LABELS[int(number)]
