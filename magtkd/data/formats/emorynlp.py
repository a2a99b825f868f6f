"""EmoryNLP's three CSV files (Zahiri and Choi, 2018, arXiv 1708.04299), as distributed with MELD.

Scenes are conversations. Clips, where they are there, are named by season, episode, scene and
utterance.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from magtkd.data.columns import SPLITS
from magtkd.data.formats.conversion import (
    Conversion,
    Options,
    make_table,
    note_of_test,
    read_csv,
    settle,
    whole_number,
)
from magtkd.data.formats.meld import find_seconds
from magtkd.data.formats.repair import Repairs, repair_text
from magtkd.data.paths import inside
from magtkd.errors import DataError, shorten

__all__ = ["find_emorynlp", "read_emorynlp"]

# Train clips that a reader of the release found missing (bagustris/nkululeko).
KNOWN_MISSING = {f"train sea4_ep4_sc3_utt{utterance}.mp4" for utterance in (8, 9, 10)}
LABELS = ("joyful", "mad", "neutral", "peaceful", "powerful", "sad", "scared")
_COLUMNS = {
    "text": ("Utterance",),
    "speaker": ("Speaker",),
    "label": ("Emotion",),
    "season": ("Season",),
    "episode": ("Episode",),
    "scene": ("Scene_ID",),
    "utterance": ("Utterance_ID",),
    "start": ("StartTime", "Start_Time", ""),
    "end": ("EndTime", "End_Time", ""),
}
_FILE = re.compile(r"emorynlp_(train|dev|test)(?:_\w+)?\.csv", re.IGNORECASE)
# A Python list of names, as its writer printed it.
_SPEAKERS = re.compile(r"'([^']*)'|\"([^\"]*)\"")


def find_emorynlp(source: Path) -> str | None:
    """Which of EmoryNLP's files are in a folder; None where the train file is not."""
    files = _files(source)
    return ", ".join(path.name for path in files.values()) if "train" in files else None


def read_emorynlp(source: Path, options: Options) -> Conversion:
    """The table of EmoryNLP's files in a folder.

    Raises:
        DataError: a file or a column is missing, two files are of one split, a number, time or
            label cannot be read, or clips are missing.
    """
    files = _files(source)
    absent = [split for split in SPLITS if split not in files]
    if absent:
        raise DataError(f"{source}: lacks emorynlp_{absent[0]}_final.csv; complete the release")
    rows = []
    num_odd, repairs = 0, Repairs()
    for split in SPLITS:
        for place, values in read_csv(files[split], _COLUMNS):
            row = _row(values, split, place, repairs)
            num_odd += row["start"] is None or row["end"] is None
            rows.append(row)
    folders = {split: _clip_folder(source, split) for split in SPLITS}
    missing = _add_clips(rows, source, folders) if any(folders.values()) else {}
    for row in rows:
        del row["clip"]
    known = frozenset(row for row, name in missing.items() if name in KNOWN_MISSING)
    table = make_table(rows, source)
    kept, num_dropped = settle(table, missing, options, source, known)
    notes = [f"{num_odd} utterances have no times that can be read"] if num_odd else []
    if not any(folders.values()):
        notes.append("no clips: no emorynlp_train_splits")
    notes += [*repairs.notes(), *note_of_test(table, kept)]
    listed = {"clips without a file": [*missing.values()]}
    return Conversion(kept, len(rows), {"without a clip": num_dropped}, listed, notes)


def _files(source: Path) -> dict[str, Path]:
    if not os.path.isdir(source):
        return {}
    files: dict[str, Path] = {}
    for name in sorted(os.listdir(source)):
        match = _FILE.fullmatch(name)
        if match is not None and files.setdefault(match[1].lower(), source / name).name != name:
            raise DataError(f"{source}: {name} and {files[match[1].lower()].name}: keep one")
    return files


def _row(values: dict[str, str], split: str, place: str, repairs: Repairs) -> dict[str, Any]:
    season, episode, scene, utterance = (
        _number(values[name], _COLUMNS[name][0], place)
        for name in ("season", "episode", "scene", "utterance")
    )
    label = values["label"].strip().lower()
    if label not in LABELS:
        raise DataError(
            f"{place}: Emotion: {shorten(values['label'])!r} is none of {', '.join(LABELS)}"
        )
    return {
        "split": split,
        # The numbering of scenes may restart in each file, as MELD's dialogues are.
        "dialogue_id": f"{split}/s{season:02d}e{episode:02d}c{scene:02d}",
        "utterance_id": utterance,
        "speaker": _speaker(repair_text(values["speaker"])),
        "text": repairs.text(values["text"]).strip(),
        "label": label,
        "start": find_seconds(values.get("start", "")),
        "end": find_seconds(values.get("end", "")),
        "clip": f"sea{season}_ep{episode}_sc{scene}_utt{utterance}.mp4",
    }


def _number(text: str, column: str, place: str) -> int:
    try:
        return whole_number(text)
    except ValueError:
        raise DataError(
            f"{place}: {column}: {shorten(text)!r} is not a whole number; correct it"
        ) from None


def _speaker(text: str) -> str:
    quoted = [one or other for one, other in _SPEAKERS.findall(text)]
    return " & ".join(quoted) or " ".join(text.strip("[] ").split())


def _clip_folder(source: Path, split: str) -> str | None:
    name = f"emorynlp_{split}_splits"
    if not os.path.isdir(source / name):
        return None
    inside(source, name)
    return name


def _add_clips(
    rows: list[dict[str, Any]], source: Path, folders: dict[str, str | None]
) -> dict[int, str]:
    """Give the rows their paths; the names of those that lack a file, by row."""
    there = {
        split: set(os.listdir(source / folder)) if folder else set()
        for split, folder in folders.items()
    }
    missing = {}
    for index, row in enumerate(rows):
        folder, clip = folders[row["split"]], row["clip"]
        is_there = clip in there[row["split"]]
        row["audio_path"] = row["video_path"] = f"{folder}/{clip}" if is_there else None
        if not is_there:
            missing[index] = f"{row['split']} {clip}"
    return missing
