"""CoMPM's text files (Lee and Lee, NAACL 2022): an utterance a line, a blank line after each
conversation.

A line has the speaker, the text and the emotion, separated by tabs; MELD's also the sentiment, and
its files begin with a line of names. `MELD_train.txt`, `EMORY_dev.txt` and so on; IEMOCAP's and
DailyDialog's begin with a small letter.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from magtkd.data.columns import SPLITS
from magtkd.data.delimited import read_bytes
from magtkd.data.formats.conversion import Conversion, Options, make_table
from magtkd.data.formats.labels import IEMOCAP, ORDERS
from magtkd.data.formats.repair import Repairs, decode_bytes
from magtkd.errors import DataError, and_more, shorten

__all__ = ["find_compm", "read_compm"]

_FILE = re.compile(r"(MELD|EMORY|iemocap|dailydialog)_(train|dev|test)\.txt")
_LABELS: dict[str, dict[str, str]] = {
    "MELD": {name: name for name in ORDERS["meld"]},
    "EMORY": {name.capitalize(): name for name in ORDERS["emorynlp"]},
    "iemocap": IEMOCAP,
    "dailydialog": {
        "neutral": "no emotion",
        **{name: name for name in ("anger", "disgust", "fear", "happiness", "sadness", "surprise")},
    },
}
"""The names of emotions as the other readers of the same data sets have them."""
_HEADER = ["Speaker", "Utterance", "Emotion", "Sentiment"]


def find_compm(source: Path) -> str | None:
    """Which of these files are in a folder; None where no train file is."""
    files = _files(source)
    return ", ".join(path.name for path in files.values()) if "train" in files else None


def read_compm(source: Path, options: Options) -> Conversion:
    """The table of the files in a folder.

    Raises:
        DataError: files of two data sets are there, one cannot be read, a line has other parts, or
            an emotion is none of the data set's.
    """
    files = _files(source)
    rows: list[dict[str, Any]] = []
    repairs = Repairs()
    for split in (one for one in SPLITS if one in files):
        dataset = files[split].name.partition("_")[0]
        for number, conversation in enumerate(_conversations(files[split], dataset)):
            for index, (place, speaker, text, emotion) in enumerate(conversation):
                label = _LABELS[dataset].get(emotion)
                if label is None:
                    known = and_more(_LABELS[dataset], 7)
                    raise DataError(f"{place}: emotion {shorten(emotion)!r} is none of {known}")
                rows.append(
                    {
                        "split": split,
                        "dialogue_id": f"{split}/{number}",
                        "utterance_id": index,
                        "speaker": repairs.text(speaker),
                        "text": repairs.text(text).strip(),
                        "label": label,
                    }
                )
    notes = [*(f"no {split} file" for split in SPLITS if split not in files), *repairs.notes()]
    return Conversion(make_table(rows, source), len(rows), notes=notes)


def _files(source: Path) -> dict[str, Path]:
    if not os.path.isdir(source):
        return {}
    found: dict[str, Path] = {}
    for name in sorted(os.listdir(source)):
        match = _FILE.fullmatch(name)
        if match is not None and found.setdefault(match[2], source / name).name != name:
            raise DataError(f"{source}: {name} and {found[match[2]].name}: keep one data set")
    if len(sets := {path.name.partition("_")[0] for path in found.values()}) > 1:
        raise DataError(f"{source}: files of {' and '.join(sorted(sets))}: keep one data set")
    return found


def _conversations(path: Path, dataset: str) -> Iterator[list[tuple[str, str, str, str]]]:
    """Place, speaker, text and emotion of each utterance."""
    found: list[tuple[str, str, str, str]] = []
    for number, line in enumerate(decode_bytes(read_bytes(path)).split("\n")):
        place, parts = f"{path}, line {number + 1}", line.strip("\r\n ").split("\t")
        if parts == _HEADER:
            continue
        if parts == [""]:
            if found:
                yield found
            found = []
            continue
        if dataset == "MELD":
            parts = parts[:-1]  # the sentiment, which follows from the emotion in MELD's files
        if len(parts) < 3:
            raise DataError(
                f"{place}: {shorten(line)!r} has no speaker, text and emotion separated by tabs; "
                "take the files as they were distributed"
            )
        found.append((place, parts[0].strip(), " ".join(parts[1:-1]), parts[-1].strip()))
    if found:
        yield found
