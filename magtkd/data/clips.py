"""A part of a media file, as one path.

Releases differ: MELD cut its clips, IEMOCAP has one video for a whole conversation. A path ends in
`#t=START,END`, in seconds, where the utterance is only a part of the file (as in the W3C's Media
Fragments URI, section 4.2.1); without that, the file is the utterance. A table's `start` and `end`
say when the utterance was spoken and never cut anything.
"""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["Clip", "join_clip", "split_clip"]

_PART = re.compile(r"#t=(\d+(?:\.\d+)?),(\d+(?:\.\d+)?)$")


class Clip(NamedTuple):
    """A file, relative to the release's folder, and which seconds of it; None for all of it."""

    path: str
    start: float | None = None
    end: float | None = None


def join_clip(path: str, start: float | None = None, end: float | None = None) -> str:
    """What a table's `audio_path` or `video_path` says of a clip."""
    return path if start is None or end is None else f"{path}#t={start:.4f},{end:.4f}"


def split_clip(text: str) -> Clip:
    """The clip that a table's `audio_path` or `video_path` names."""
    part = _PART.search(text)
    if part is None:
        return Clip(text)
    return Clip(text[: part.start()], float(part[1]), float(part[2]))
