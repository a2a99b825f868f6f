"""How the field's tuples of features are recognised, and what their fields have in common.

Public loaders agree on these orders. A tuple is recognised by its own content, never by its name:

    SDT (12 for IEMOCAP, 13 for MELD)    ids, speakers, labels, 4 text, audio, video, sentences,
                                         train ids, test ids
    MMGCN (9 for IEMOCAP, 10 for MELD)   ids, speakers, labels, text, audio, video, sentences,
                                         train ids, test ids
    COSMIC (10; 11 for MELD)             speakers, labels (MELD: and sentiments), 4 text, sentences,
                                         train ids, test ids, dev ids

What follows the test ids is dev's ids where it is a collection of ids, none of them test's; else it
is not needed (MELD's sentiments). Dev's ids that are train's too are taken out of train.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Sized
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from magtkd.data.formats.conversion import Options, describe_names
from magtkd.data.formats.repair import decode_bytes
from magtkd.data.speakers import NOBODY, numbered_name, session_name
from magtkd.errors import DataError, shorten

__all__ = [
    "Layout",
    "column",
    "describe",
    "find_layout",
    "is_id",
    "matrix",
    "numbers",
    "speaker_name",
    "unfinished",
]

Features = Mapping[str, npt.NDArray[np.float32]]


class Layout(NamedTuple):
    """An order of fields. `kinds` has a letter a field: V for vectors, S for numbers or texts by
    conversation, I for ids."""

    name: str
    kinds: re.Pattern[str]
    fields: tuple[str, ...]


def _layout(name: str, kinds: str, fields: str) -> Layout:
    return Layout(name, re.compile(kinds), tuple(fields.split()))


_LAYOUTS = (
    _layout(
        "SDT's",
        "S[SV]SVVVVVVSII.?",
        "ids speakers labels text1 text2 text3 text4 audio video sentences train test rest",
    ),
    _layout(
        "MMGCN's",
        "S[SV]SVVVSII.?",
        "ids speakers labels text1 audio video sentences train test rest",
    ),
    _layout(
        "COSMIC's",
        "[SV]SVVVVSII.?",
        "speakers labels text1 text2 text3 text4 sentences train test rest",
    ),
    _layout(
        "COSMIC's",
        "[SV]SSVVVVSII.?",
        "speakers labels sentiments text1 text2 text3 text4 sentences train test rest",
    ),
)


def find_layout(content: Any) -> Layout | None:
    """The order of a tuple's fields; None where it is none of these."""
    if not isinstance(content, tuple | list) or len(content) > 20:
        return None
    kinds = "".join(_kind(value) for value in content)
    return next((layout for layout in _LAYOUTS if layout.kinds.fullmatch(kinds)), None)


def _kind(value: Any) -> str:
    if isinstance(value, Mapping):
        first = next((item for item in value.values() if not _is_empty(item)), "")
        depth = -1 if isinstance(first, str) else _depth(first)
        return {1: "S", 2: "V"}.get(depth, "?")
    if getattr(value, "ndim", 1) == 0:  # an array of one number cannot be iterated over
        return "?"
    if isinstance(value, list | tuple | set | frozenset | np.ndarray):
        return "I" if all(is_id(item) for item in value) else "?"
    return "?"


def is_id(item: Any) -> bool:
    """Whether something can be a conversation's id."""
    return isinstance(item, str | int | np.integer) and not isinstance(item, bool)


def _is_empty(item: Any) -> bool:
    # An array without dimensions has a length that raises.
    return not isinstance(item, Sized) or getattr(item, "ndim", 1) == 0 or len(item) == 0


def _depth(value: Any) -> int:
    """1 of a list of numbers or texts, 2 of a list of such lists; -1 where that is not clear."""
    try:
        depths = {np.ndim(item) for item in value}
    except (TypeError, ValueError):  # a list of lists of several lengths, or not a list
        return -1
    return 1 + depths.pop() if len(depths) == 1 else 1 if not depths else -1


def describe(content: Any) -> str:
    """What a pickle holds, in a few words, with a letter a field."""
    if isinstance(content, tuple | list):
        return f"a {type(content).__name__} of {len(content)} ({''.join(map(_kind, content))})"
    return f"a {type(content).__name__}"


def column(field: Any, name: str, key: Any, source: Path) -> list[Any]:
    """One conversation's values of a field; byte strings, which Python 2 wrote, as text.

    Raises:
        DataError: it has none.
    """
    values: Any = field.get(key) if isinstance(field, Mapping) else None
    values = values.tolist() if hasattr(values, "tolist") else values
    if not isinstance(values, list | tuple):
        raise DataError(f"{source}: conversation {key} has no {name}; fetch the file again")
    return [decode_bytes(value) if isinstance(value, bytes) else value for value in values]


def numbers(field: Any, name: str, key: Any, source: Path) -> list[int]:
    """One conversation's values of a field of whole numbers.

    Raises:
        DataError: it has none, or others.
    """
    found = []
    for value in column(field, name, key, source):
        try:
            number = float(np.asarray(value).item())
            found.append(int(number))
        except (TypeError, ValueError, OverflowError):
            number = np.nan
        if not number.is_integer():
            shown = shorten(ascii(value))
            raise DataError(
                f"{source}: conversation {key}: {name} has {shown}, which is no whole number; "
                "fetch the file again"
            )
    return found


def speaker_name(value: Any, key: str, source: Path) -> str:
    """A name; `S3` for the third place of a one-hot row, `Ses01_F` for a session's F.

    Raises:
        DataError: it is neither a name, nor a number, nor a row of numbers.
    """
    if isinstance(value, str):
        return session_name(value, key)
    try:
        row = np.asarray(value, np.float64)
        if row.ndim == 0:
            return numbered_name(int(row))
        if row.ndim == 1 and row.size:
            return numbered_name(int(row.argmax())) if row.any() else NOBODY
    except (TypeError, ValueError, OverflowError):
        pass
    raise DataError(
        f"{source}: conversation {key}: a speaker is {shorten(ascii(value))}; repair it"
    )


def matrix(
    field: Mapping[Any, Any], name: str, lengths: Mapping[Any, int], source: Path
) -> npt.NDArray[np.float32]:
    """A feature of some conversations as [utterances, width].

    Raises:
        DataError: a conversation has another number of rows than utterances, or another width.
    """
    parts: list[npt.NDArray[np.float32]] = []
    for key, length in lengths.items():
        try:
            with np.errstate(over="ignore"):  # what float32 cannot hold is not finite
                part = np.asarray(field[key], np.float32)
        except (KeyError, TypeError, ValueError, IndexError, OverflowError):
            part = np.empty(0, np.float32)
        width = parts[0].shape[1] if parts else (part.shape or (0,))[-1]
        if part.shape != (length, width) or not width:
            raise DataError(
                f"{source}: conversation {key}: {name} features have the shape {part.shape}, not "
                f"{(length, width)}; fetch the file again"
            )
        parts.append(part)
    return np.concatenate(parts)


def unfinished(
    features: Features, rows: Sequence[Mapping[str, Any]], options: Options, source: Path
) -> dict[int, str]:
    """The utterances, by row, that have features which are not finite.

    Raises:
        DataError: there are some, and `options` does not drop them.
    """
    finite = np.logical_and.reduce([np.isfinite(part).all(axis=1) for part in features.values()])
    found = {
        index: f"{rows[index]['dialogue_id']} utterance {rows[index]['utterance_id']}"
        for index in np.flatnonzero(~finite).tolist()
    }
    if found and options.on_missing != "drop":
        raise DataError(
            f"{source}: {len(found)} utterances have features that are not finite: "
            f"{describe_names([*found.values()])}; choose --on-missing drop"
        )
    return found
