"""IEMOCAP's full release (Busso et al., 2008): five sessions of two speakers each.

Labels and times come from `EmoEvaluation`, texts from `transcriptions`. A sentence has a wav file
of its own; video is one file a conversation, of which the utterance is the part between its times.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from magtkd.data.formats.conversion import Conversion, Options, make_table, note_of_test, settle
from magtkd.data.formats.labels import FOUR_CLASSES, FOUR_NOTE, IEMOCAP
from magtkd.data.formats.repair import Repairs, decode_bytes
from magtkd.data.paths import inside
from magtkd.errors import DataError

__all__ = ["find_iemocap", "read_iemocap", "rename_label"]

TEST_SESSION = 5
EVALUATIONS, TRANSCRIPTIONS = "dialog/EmoEvaluation", "dialog/transcriptions"
WAVS, VIDEOS = "sentences/wav", "dialog/avi/DivX"
# [6.2901 - 8.2357]  Ses01F_impro01_F000  neu  [2.5000, 2.5000, 2.5000]
_EVALUATION = re.compile(
    r"\[(\d+\.?\d*)\s*-\s*(\d+\.?\d*)\]\s+(Ses\d\d[FM]_\w+_([FM])\w*\d+)\s+(\w{3})\b"
)
# Ses01F_impro01_F000 [006.2901-008.2357]: Excuse me.
_TRANSCRIPT = re.compile(r"(Ses\d\d[FM]_\w+_[FM]\w*\d+)\s+\[[^\]]*\]:?\s*(.*)")


@dataclass
class _Reading:
    """What has been read so far."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    missing: dict[int, str] = field(default_factory=dict)
    dropped: Counter[str] = field(default_factory=Counter)
    without_text: list[str] = field(default_factory=list)
    repairs: Repairs = field(default_factory=Repairs)


def find_iemocap(source: Path) -> str | None:
    """Which sessions are in a folder; None where there are none."""
    sessions = _sessions(source)
    return f"{EVALUATIONS} of {', '.join(sessions.values())}" if sessions else None


def read_iemocap(source: Path, options: Options) -> Conversion:
    """The table of the release: sessions 1 to 4 are train (dev is carved out of it), 5 is test.

    Utterances are numbered by their start before any is dropped.

    Raises:
        DataError: a file cannot be read, or wav or avi files are missing.
    """
    sessions = _sessions(source)
    if not sessions:
        raise DataError(f"{source}: has no Session1/{EVALUATIONS}; give the release's folder")
    has_wavs, has_videos = (
        any(os.path.isdir(source / name / kind) for name in sessions.values())
        for kind in (WAVS, VIDEOS)
    )
    reading = _Reading()
    for number, name in sessions.items():
        _read_session(source, name, number, (has_wavs, has_videos), options, reading)
    num_read = len(reading.rows) + sum(reading.dropped.values())
    table = make_table(reading.rows, source)
    kept, num_missing = settle(table, reading.missing, options, source)
    reading.dropped["without a wav or avi file"] = num_missing
    listed = {
        "utterances without a wav or avi file": [*reading.missing.values()],
        "utterances without a transcription": reading.without_text,
    }
    notes = (
        *_notes(sessions, has_wavs, has_videos, options),
        *reading.repairs.notes(),
        *note_of_test(table, kept),
    )
    return Conversion(kept, num_read, reading.dropped, listed, notes)


def rename_label(code: str, options: Options) -> str | None:
    """The name of one of IEMOCAP's codes; None for one that is not among the classes: such an
    utterance is dropped, or context where `options.unlabelled` is `keep`."""
    name = IEMOCAP.get(code)
    return FOUR_CLASSES.get(name, name) if name and options.classes == 4 else name


def _sessions(source: Path) -> dict[int, str]:
    return {
        number: f"Session{number}"
        for number in range(1, TEST_SESSION + 1)
        if os.path.isdir(source / f"Session{number}" / EVALUATIONS)
    }


def _read_session(
    source: Path,
    name: str,
    number: int,
    has_media: tuple[bool, bool],
    options: Options,
    reading: _Reading,
) -> None:
    for path in _text_files(source / name / EVALUATIONS):
        dialogue = path.stem
        texts = _transcripts(source / name / TRANSCRIPTIONS / path.name)
        evaluations = sorted(
            (float(start), float(end), utterance, sex, code)
            for start, end, utterance, sex, code in _EVALUATION.findall(_read_text(path))
        )
        for index, (start, end, utterance, sex, code) in enumerate(evaluations):
            label = rename_label(code, options)
            if label is None and options.unlabelled != "keep":
                reading.dropped[f"label {code}"] += 1
                continue
            wav = f"{name}/{WAVS}/{dialogue}/{utterance}.wav"
            avi = f"{name}/{VIDEOS}/{dialogue}.avi"
            files = [_there(source, path) for path in (wav, avi)]
            if any(has and not there for has, there in zip(has_media, files, strict=True)):
                reading.missing[len(reading.rows)] = utterance
            if utterance not in texts:
                reading.without_text.append(utterance)
            row = {
                "split": "test" if number == TEST_SESSION else "train",
                "dialogue_id": dialogue,
                "utterance_id": index,
                "speaker": f"Ses{number:02d}_{sex}",
                "text": reading.repairs.text(texts.get(utterance, "")),
                "label": label,
                "start": start,
                "end": end,
                "audio_path": wav if files[0] else None,
                "video_path": avi if files[1] else None,
            }
            reading.rows.append(row)


def _text_files(folder: Path) -> Iterator[Path]:
    for name in sorted(os.listdir(folder)):
        if name.startswith("Ses") and name.endswith(".txt"):  # not macOS's ._Ses*.txt
            yield folder / name


def _read_text(path: Path) -> str:
    try:
        return decode_bytes(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; check the release") from None


def _transcripts(path: Path) -> dict[str, str]:
    matches = (_TRANSCRIPT.fullmatch(line.strip()) for line in _read_text(path).splitlines())
    return {match[1]: match[2].strip() for match in matches if match}


def _there(source: Path, relative: str) -> bool:
    path = source / relative
    return os.path.isfile(path) and os.path.getsize(path) > 0 and bool(inside(source, relative))


def _notes(
    sessions: dict[int, str], has_wavs: bool, has_videos: bool, options: Options
) -> Iterator[str]:
    absent = [f"Session{number}" for number in range(1, 6) if number not in sessions]
    if absent:
        yield f"not there: {', '.join(absent)}"
    if not has_wavs:
        yield f"no audio: no {WAVS}"
    if not has_videos:
        yield f"no video: no {VIDEOS}"
    if options.classes == 4:
        yield FOUR_NOTE
