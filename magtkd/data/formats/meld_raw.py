"""MELD.Raw: MELD's three CSV files and the folders of clips, one mp4 an utterance.

The clip of an utterance is its audio too. A clip that is known to be broken is not used, even where
its file can be read; see `magtkd.data.formats.meld.BROKEN_CLIPS` (reported by users of the release:
declare-lab/MELD, issues 20, 22, 27, 39 and 52).
"""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

import pyarrow as pa

from magtkd.data.columns import SPLITS
from magtkd.data.formats.conversion import Conversion, Options, note_of_test, settle
from magtkd.data.formats.meld import BROKEN_CLIPS, csv_path, is_dyadic, read_meld
from magtkd.data.paths import inside
from magtkd.errors import DataError

__all__ = ["FOLDERS", "clip_folder", "find_meld", "read_meld_raw"]

FOLDERS = {
    "train": ("train_splits",),
    "dev": ("dev_splits_complete", "dev_splits"),
    "test": ("output_repeated_splits_test", "test_splits"),
}
_CLIP = re.compile(r"dia(\d+)_utt(\d+)\.mp4")
_KINDS = (("._", "._* files of macOS"), ("final_videos_test", "final_videos_test* duplicates"))


def find_meld(source: Path) -> str | None:
    """What of MELD's release is in a folder; None where its files of utterances are not."""
    if not os.path.isdir(source) or not os.path.exists(csv_path(source, "train")):
        return None
    there = [split for split in SPLITS if clip_folder(source, split)]
    return f"{csv_path(source, 'train').name} and clips of {', '.join(there) or 'no split'}"


def clip_folder(source: Path, split: str) -> str | None:
    """The folder of a split's clips, relative to the release's; None where there is none.

    Raises:
        DataError: it is a link that leads out of the release's folder.
    """
    for name in FOLDERS[split]:
        for relative in (name, f"{split}/{name}"):
            if os.path.isdir(source / relative):
                inside(source, relative)
                return relative
    return None


def read_meld_raw(source: Path, options: Options) -> Conversion:
    """The table of MELD's release; without any folder of clips, of its text alone.

    Raises:
        DataError: a CSV file is wrong, or clips are missing that the release has.
    """
    if is_dyadic(source):
        table, notes = read_meld(source)
        what = "conversations of two speakers, some utterances in several of them; without clips"
        return Conversion(table, table.num_rows, notes=(*notes, what))
    folders = {split: clip_folder(source, split) for split in SPLITS}
    has_clips = any(folders.values())
    # With clips, `_with_clips` notes which of them are broken.
    table, notes = read_meld(source, warn_of_clips=not has_clips)
    if not has_clips:
        names = ", ".join(FOLDERS[split][0] for split in SPLITS)
        return Conversion(table, table.num_rows, notes=(*notes, f"no clips: none of {names}"))
    return _with_clips(table, folders, source, options, list(notes))


def _with_clips(
    table: pa.Table,
    folders: dict[str, str | None],
    source: Path,
    options: Options,
    notes: list[str],
) -> Conversion:
    clips, extra = _find_clips(source, folders)
    paths: list[str | None] = []
    missing: dict[int, str] = {}
    known: dict[int, str] = {}
    columns = (table[name].to_pylist() for name in ("split", "dialogue_id", "utterance_id"))
    for row, (split, dialogue, utterance) in enumerate(zip(*columns, strict=True)):
        place = (split, int(dialogue.split("/")[1]), utterance)
        path = clips.pop(place, None)
        reason = BROKEN_CLIPS.get(place)
        if path is not None and reason in {None, "missing"}:
            paths.append(path)
            continue
        paths.append(None)
        missing[row] = f"{split} dia{place[1]}_utt{utterance}"
        if reason is not None:
            known[row] = f"{missing[row]} ({reason})"
    extra.update(f"{split} clips without a row" for split, _, _ in clips)
    notes += [f"not used: {count} {name}" for name, count in sorted(extra.items())]
    column = pa.array(paths, pa.string())
    table = table.append_column("audio_path", column).append_column("video_path", column)
    kept, num_dropped = settle(table, missing, options, source, frozenset(known))
    notes += note_of_test(table, kept)
    absent = [name for row, name in missing.items() if row not in known]
    return Conversion(
        kept,
        table.num_rows,
        {"without a clip": num_dropped},
        {"clips known to be broken or missing": [*known.values()], "clips without a file": absent},
        notes,
    )


def _find_clips(
    source: Path, folders: dict[str, str | None]
) -> tuple[dict[tuple[str, int, int], str], Counter[str]]:
    """Paths of clips by (split, dialogue, utterance), and how many other files there are by kind.

    An empty file is no clip.
    """
    clips: dict[tuple[str, int, int], str] = {}
    others: Counter[str] = Counter()
    for split, folder in folders.items():
        if folder is None:
            continue
        for entry in _entries(source / folder):
            match = _CLIP.fullmatch(entry.name)
            if match is None:
                start = (kind for prefix, kind in _KINDS if entry.name.startswith(prefix))
                others[next(start, "other files")] += 1
            elif entry.is_file() and entry.stat().st_size:
                clips[split, int(match[1]), int(match[2])] = f"{folder}/{entry.name}"
    return clips, others


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror}; check the release") from None
