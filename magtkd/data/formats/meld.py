"""MELD's three CSV files (Poria et al., ACL 2019, arXiv 1810.02508): text, speakers, times.

The clips are a separate download, so the table has no audio and no video.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from magtkd.data.columns import SCHEMA, SPLITS
from magtkd.data.delimited import find_delimiter, is_blank
from magtkd.data.formats.conversion import make_table, whole_number
from magtkd.data.formats.labels import ORDERS
from magtkd.data.formats.repair import Repairs, decode_bytes, repair_text
from magtkd.errors import DataError, shorten

__all__ = [
    "BROKEN_CLIPS",
    "csv_path",
    "file_name",
    "find_seconds",
    "is_dyadic",
    "meld_speaker",
    "read_meld",
]

# Clips of MELD.Raw, as (split, dialogue, utterance), found by those who read them.
BROKEN_CLIPS = {
    ("train", 125, 3): "cannot be decoded",
    ("train", 309, 0): "cut wrongly",
    ("dev", 110, 7): "missing",
    ("test", 38, 4): "305 s long, cut wrongly",
    ("test", 220, 0): "235 s long, cut wrongly",
}
# Two spellings of one name.
_SPELLINGS = {"Phoebe Sr": "Phoebe Sr.", "Dr. Leedbetter": "Dr. Ledbetter"}
_COLUMNS = (
    "Utterance",
    "Speaker",
    "Emotion",
    "Dialogue_ID",
    "Utterance_ID",
    "StartTime",
    "EndTime",
)
_CUT = (
    "is the row cut, or a quote in it or before it not closed? Repair it, or take the file as MELD "
    "distributes it"
)
_TIME = re.compile(r"(\d+):(\d\d):(\d\d)[,.](\d{1,3})")
_DYADIC = "_dya.csv"
_TABLE_COLUMNS = SCHEMA.names[:8]
Row = tuple[str, str, int, str, str, str, float, float]


def file_name(split: str) -> str:
    """The name of a split's file."""
    return f"{split}_sent_emo.csv"


def csv_path(folder: Path, split: str) -> Path:
    """Where a split's file is: in the folder itself, or in one with the split's name; or that of
    `MELD_Dyadic`, whose names end in `_dya`."""
    plain = folder / file_name(split)
    places = (folder / split / plain.name, plain, folder / f"{plain.stem}{_DYADIC}")
    return next((place for place in places if os.path.exists(place)), plain)


def is_dyadic(folder: Path) -> bool:
    """Whether a folder has MELD's conversations of two speakers, which share utterances and have
    numbers of their own, so that clips are not found by them."""
    return csv_path(folder, "train").name.endswith(_DYADIC)


def read_meld(
    folder: str | Path, *, warn_of_clips: bool = True
) -> tuple[pa.Table, tuple[str, ...]]:
    """The table of a folder with MELD's CSV files, and the warnings about it.

    A dialogue's number becomes `SPLIT/NUMBER`, since each file counts from 0; times become seconds
    of the episode.

    Args:
        folder: the folder.
        warn_of_clips: whether to warn of the clips that are known to be broken.

    Raises:
        DataError: a file or a column is missing, a row is cut, a number or time cannot be read, or
            a label is none of MELD's seven.
    """
    rows: list[Row] = []
    repairs = Repairs()
    for split in SPLITS:
        rows += _read_split(csv_path(Path(folder), split), split, repairs)
    table = make_table([dict(zip(_TABLE_COLUMNS, row, strict=True)) for row in rows], folder)
    return table, (
        *repairs.notes(),
        *_warnings(rows, warn_of_clips and not is_dyadic(Path(folder))),
    )


def _read_split(path: Path, split: str, repairs: Repairs) -> list[Row]:
    try:
        text = decode_bytes(path.read_bytes())
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read: {error.strerror}; MELD is a folder with all of "
            f"{', '.join(map(file_name, SPLITS))}"
        ) from None
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=find_delimiter(text))
    missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise DataError(
            f"{path}: lacks the column {missing[0]}; take the file as MELD distributes it"
        )
    rows = []
    first = reader.line_num + 1
    try:
        for record in reader:
            if not is_blank([record[name] for name in _COLUMNS]):
                place = _place(path, first, reader.line_num)
                rows.append(_row(record, split, place, repairs))
            first = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}, line {first}: not CSV: {error}: {_CUT}") from None
    return rows


def _place(path: Path, first: int, last: int) -> str:
    # A quote that is not closed makes one row of many lines, and it is in the first.
    return f"{path}, line {first}" if first >= last else f"{path}, lines {first} to {last}"


def _row(record: dict[str, str | None], split: str, place: str, repairs: Repairs) -> Row:
    absent = [name for name in _COLUMNS if record[name] is None]
    if absent:
        raise DataError(f"{place}: has no {absent[0]}: {_CUT}")
    values = {name: record[name] or "" for name in _COLUMNS}
    return (
        split,
        f"{split}/{_number(values, 'Dialogue_ID', place)}",
        _number(values, "Utterance_ID", place),
        meld_speaker(values["Speaker"]),
        repairs.text(values["Utterance"]),
        _label(values["Emotion"], place),
        _seconds(values, "StartTime", place),
        _seconds(values, "EndTime", place),
    )


def meld_speaker(name: str) -> str:
    """A speaker's name in one of its spellings."""
    plain = " ".join(repair_text(name).replace("’", "'").split())
    return _SPELLINGS.get(plain, plain)


def _label(text: str, place: str) -> str:
    label = repair_text(text).strip().lower()
    if label not in ORDERS["meld"]:
        raise DataError(
            f"{place}: Emotion: {shorten(text)!r} is none of {', '.join(ORDERS['meld'])}; "
            "correct it"
        )
    return label


def _number(values: dict[str, str], name: str, place: str) -> int:
    try:
        return whole_number(values[name])
    except ValueError:
        raise DataError(
            f"{place}: {name}: {shorten(values[name])!r} is not a whole number: {_CUT}"
        ) from None


def _seconds(values: dict[str, str], name: str, place: str) -> float:
    found = find_seconds(values[name])
    if found is None:
        raise DataError(
            f"{place}: {name}: {shorten(values[name])!r} is not a time such as 00:20:57,256; "
            "correct it"
        )
    return found


def find_seconds(text: str) -> float | None:
    """`00:20:57,256` as seconds; digits after the comma are milliseconds, as in subtitles."""
    match = _TIME.fullmatch(text.strip())
    if match is None:
        return None
    hours, minutes, seconds, thousandths = map(int, match.groups())
    return hours * 3600 + minutes * 60 + seconds + thousandths / 1000


def _warnings(rows: Sequence[Row], warn_of_clips: bool) -> Iterator[str]:
    there = {(row[1], row[2]) for row in rows}
    broken = [
        f"{split} dia{dialogue}_utt{utterance} ({reason})"
        for (split, dialogue, utterance), reason in BROKEN_CLIPS.items()
        if (f"{split}/{dialogue}", utterance) in there
    ]
    if broken and warn_of_clips:
        yield f"clips of MELD.Raw not to be used: {', '.join(broken)}; their text is kept"
    num_empty = sum(row[7] <= row[6] for row in rows)
    if num_empty:
        yield f"{num_empty} utterances end no later than they start"
