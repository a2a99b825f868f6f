"""Which file, and which part of it, is an utterance's clip."""

from __future__ import annotations

import functools
import hashlib
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from magtkd.data.paths import inside
from magtkd.errors import DataError

__all__ = ["ClipSource", "clip_sources", "find_absent", "media_fingerprints", "media_paths"]

END_BYTES = 4096


@dataclass(frozen=True)
class ClipSource:
    """An utterance's clip: `place` names it in messages, `path` is None where the table has none,
    `start` and `end` in seconds of the file, None for all of it."""

    place: str
    path: str | None
    start: float | None = None
    end: float | None = None


def media_paths(table: pa.Table, modality: str) -> list[str | None]:
    """The path of each utterance's clip as the table has it; audio is taken from the video where
    there is no other.

    Args:
        table: conversations, with `audio_path` or `video_path` or neither.
        modality: `audio` or `video`.
    """
    paths: list[str | None] = [None] * table.num_rows
    for name in ("audio_path", "video_path") if modality == "audio" else ("video_path",):
        if name in table.column_names:
            column = table.column(name).to_pylist()
            paths = [known or other or None for known, other in zip(paths, column, strict=True)]
    return paths


def media_fingerprints(table: pa.Table, root: Path | None) -> dict[str, str]:
    """For each modality that has clips, a hash of their paths, sizes, first and last bytes.

    Not of all that is in them: reading a corpus's clips takes minutes, and planning must not. The
    ends of a file hold a container's index or some of the sound, which no other recording shares.

    Args:
        table: conversations.
        root: the folder that the paths are relative to.
    """
    found = {}
    ends = functools.cache(functools.partial(_ends, root))  # both modalities may share a file
    for modality in ("audio", "video"):
        paths = sorted({path for path in media_paths(table, modality) if path})
        if paths:
            digest = hashlib.sha256()
            for path in paths:
                digest.update(f"{path}\0".encode())
                digest.update(ends(path))
            found[modality] = digest.hexdigest()
    return found


def find_absent(table: pa.Table, root: Path | None) -> dict[str, str]:
    """For each modality that has clips, but not one of their files, one of their paths.

    Args:
        table: conversations.
        root: the folder that the paths are relative to.
    """
    found = {}
    for modality in ("audio", "video"):
        paths = [path for path in media_paths(table, modality) if path]
        if paths and not any(_is_there(root, path) for path in paths):
            found[modality] = paths[0]
    return found


def _is_there(root: Path | None, path: str) -> bool:
    try:
        return inside(root or ".", path).is_file()
    except OSError:
        return False
    except DataError:
        return True  # a path that leaves the folder is refused by the stage, by name


def _ends(root: Path | None, path: str) -> bytes:
    try:
        with inside(root or ".", path).open("rb") as file:
            first = file.read(END_BYTES)
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - END_BYTES))
            return f"{size}\0".encode() + first + file.read()
    except (OSError, DataError):
        return b"-1\0"  # the stage reports all of them in one message


def clip_sources(table: pa.Table, modality: str, cut: str) -> list[ClipSource]:
    """The clip of each row of the data stage's table.

    Args:
        table: the data stage's table.
        modality: `audio` or `video`.
        cut: whether to cut by start and end: `always`, `never`, or `shared`, which cuts where
            several utterances share a file.
    """
    paths = media_paths(table, modality)
    count = Counter(paths)
    names = zip(
        table.column("dialogue_id").to_pylist(),
        table.column("utterance_id").to_pylist(),
        strict=True,
    )
    places = [f"dialogue {dialogue}, utterance {utterance}" for dialogue, utterance in names]
    starts, ends = (_times(table, name) for name in ("start", "end"))
    sources = []
    for place, path, start, end in zip(places, paths, starts, ends, strict=True):
        cuts = cut == "always" or (cut == "shared" and count[path] > 1)
        times = (start, end) if cuts else (None, None)
        sources.append(ClipSource(place, path, *times))
    return sources


def _times(table: pa.Table, name: str) -> list[float | None]:
    if name not in table.column_names:
        return [None] * table.num_rows
    times: list[float | None] = table.column(name).to_pylist()
    return times
