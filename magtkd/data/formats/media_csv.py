"""Three CSV files that name a video file, and mostly a wav file, for each utterance.

The form in which MAGTKD and TelME take IEMOCAP (`IEMOCAP_train.csv`, times in seconds of the
conversation's video) and MELD (`train_meld_emo.csv`, one clip an utterance).
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

from magtkd.data.columns import SPLITS
from magtkd.data.formats.conversion import (
    Conversion,
    Options,
    make_table,
    read_csv,
    settle,
    whole_number,
)
from magtkd.data.formats.iemocap import rename_label
from magtkd.data.formats.labels import IEMOCAP, IEMOCAP_OTHERS
from magtkd.data.formats.meld import find_seconds, meld_speaker
from magtkd.data.formats.repair import Repairs, repair_text
from magtkd.data.paths import inside
from magtkd.data.speakers import session_name
from magtkd.errors import DataError, shorten

__all__ = ["find_media_csv", "read_media_csv"]

_COLUMNS = {
    "text": ("Utterance",),
    "speaker": ("Speaker",),
    "label": ("Emotion",),
    "dialogue": ("Dialogue_ID",),
    "utterance": ("Utterance_ID", ""),
    "wav": ("Wav_Path", ""),
    "video": ("Video_Path",),
    "start": ("Start_Time", "StartTime"),
    "end": ("End_Time", "EndTime"),
}
_FILES = (
    re.compile(r"IEMOCAP_(train|dev|test)\.csv"),
    re.compile(r"(train|dev|test)_meld_emo\.csv"),
)
Row = dict[str, Any]


@dataclass
class _Files:
    """Where the files that are named are below `root`.

    Such CSV files have paths from their writer's folder: `../datasets/IEMOCAP/Session1/...`.
    Leading folders are left out until a file is there; those of one row are tried first for the
    next.
    """

    root: Path
    skip: int = 0

    def find(self, text: str) -> str | None:
        """The path of a file relative to `root`; None where there is none."""
        if not text.isprintable():  # not even a damaged byte may reach the table
            return None
        parts = [part for part in PureWindowsPath(text.strip()).parts if part not in {"..", "."}]
        for skip in (self.skip, *range(len(parts))):
            relative = "/".join(parts[skip:]).lstrip("/\\")
            if relative and os.path.isfile(self.root / relative):
                inside(self.root, relative)
                self.skip = skip
                return relative
        return None


def find_media_csv(source: Path) -> str | None:
    """Which of the files are in a folder; None where the train file is not."""
    files = _files(source)
    return ", ".join(path.name for path in files.values()) if "train" in files else None


def read_media_csv(source: Path, options: Options) -> Conversion:
    """The table of the files in a folder; the media files are below the same folder.

    Labels that are IEMOCAP's codes become names. Utterances without a number are counted in their
    order. Speakers that are IEMOCAP's `F`, `M` or the utterance's id become `Ses01_F` and so on.
    Where a file has no column of wav files, `audio_path` is null.

    Raises:
        DataError: a file or column is missing, a number or time cannot be read, or media files are
            missing.
    """
    files = _files(source)
    if "train" not in files:
        raise DataError(
            f"{source}: has no IEMOCAP_train.csv or train_meld_emo.csv; give its folder"
        )
    rows: list[Row] = []
    dropped: Counter[str] = Counter()
    missing: dict[int, str] = {}
    media, repairs = _Files(source), Repairs()
    num_without_wav = 0
    for split in SPLITS:
        for row in _read_split(files[split], split, repairs) if split in files else ():
            code = row["label"]
            is_code = code in IEMOCAP or code in IEMOCAP_OTHERS
            label = rename_label(code, options) if is_code else code or None
            if is_code and label is None and options.unlabelled != "keep":
                dropped[f"label {code}"] += 1
                continue
            num_without_wav += row["audio_path"] is None
            absent = _resolve(row, media)
            if absent:
                missing[len(rows)] = absent
            rows.append(row | {"label": label})
    num_ids = _name_speakers(rows)
    num_read = len(rows) + sum(dropped.values())
    table, num_missing = settle(make_table(rows, source), missing, options, source)
    dropped["without a file that is named"] = num_missing
    notes = [f"no {split} file" for split in SPLITS if split not in files]
    counts = {
        "utterances are a part, from start to end, of a longer video": _num_parts(rows),
        "utterances have no Wav_Path; their sound is read from their video": num_without_wav,
        "speakers were utterance ids; they are named by session and sex, as Ses01_F": num_ids,
    }
    notes += [*(f"{count} {what}" for what, count in counts.items() if count), *repairs.notes()]
    return Conversion(table, num_read, dropped, {"files not found": [*missing.values()]}, notes)


def _name_speakers(rows: list[Row]) -> int:
    """Give IEMOCAP's speakers one name each; how many utterances had their own id for it."""
    num_ids = 0
    for row in rows:
        given = row["speaker"]
        row["speaker"] = session_name(given, row["dialogue_id"].removeprefix(f"{row['split']}/"))
        num_ids += row["speaker"] != given and len(given) > 1
    return num_ids


def _num_parts(rows: list[Row]) -> int:
    """How many utterances share their video with others."""
    shared = Counter(row["video_path"] for row in rows if row["video_path"])
    return sum(count for count in shared.values() if count > 1)


def _files(source: Path) -> dict[str, Path]:
    if not os.path.isdir(source):
        return {}
    found: dict[str, Path] = {}
    for name in sorted(os.listdir(source)):
        match = next(filter(None, (pattern.fullmatch(name) for pattern in _FILES)), None)
        if match is not None and found.setdefault(match[1], source / name).name != name:
            raise DataError(f"{source}: {name} and {found[match[1]].name}: keep one data set's")
    return found


def _read_split(path: Path, split: str, repairs: Repairs) -> Iterator[Row]:
    count: Counter[str] = Counter()
    is_meld = _FILES[1].fullmatch(path.name) is not None
    for place, values in read_csv(path, _COLUMNS):
        dialogue = repair_text(values["dialogue"]).strip()
        number = values.get("utterance", "").strip()
        if not dialogue:
            raise DataError(f"{place}: Dialogue_ID is empty; correct it")
        yield {
            "split": split,
            "dialogue_id": f"{split}/{dialogue}",
            "utterance_id": _number(number, count[dialogue]),
            "speaker": (meld_speaker if is_meld else repair_text)(values["speaker"]).strip(),
            "text": repairs.text(values["text"]).strip(),
            "label": repair_text(values["label"]).strip().lower(),
            "start": _seconds(values["start"], "Start_Time", place),
            "end": _seconds(values["end"], "End_Time", place),
            "audio_path": values.get("wav"),
            "video_path": values["video"],
        }
        count[dialogue] += 1


def _number(text: str, otherwise: int) -> int:
    try:
        return whole_number(text)
    except (ValueError, OverflowError):  # IEMOCAP's ids
        return otherwise


def _seconds(text: str, column: str, place: str) -> float:
    found = find_seconds(text)
    if found is not None:
        return found
    try:
        return float(text)
    except ValueError:
        raise DataError(
            f"{place}: {column}: {shorten(text)!r} is neither seconds nor a time such as "
            "00:20:57,256"
        ) from None


def _resolve(row: Row, media: _Files) -> str | None:
    """Put the paths that are there into the row; the first name that is not there. A path
    that is None has no column, and is no missing file; an empty cell is one."""
    paths = {name: row[name] for name in ("audio_path", "video_path")}
    named = {name: text for name, text in paths.items() if text is not None}
    for name, text in named.items():
        row[name] = media.find(text)
    return next((text or "no name" for name, text in named.items() if row[name] is None), None)
