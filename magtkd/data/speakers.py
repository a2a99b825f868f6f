"""Speakers: names that identify a speaker across conversations, and the numbers of the models."""

from __future__ import annotations

import re
from typing import Literal, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from magtkd.data.columns import codes_of
from magtkd.errors import DataError, shorten

__all__ = ["NOBODY", "number_speakers", "numbered_name", "session_name"]

NOBODY = "other"
"""The name where a file's one-hot row marks no speaker."""
_DIALOGUE = re.compile(r"(Ses\d\d)[FM]_")
_UTTERANCE = re.compile(r"(Ses\d\d)[FM]_\w+_([FM])X*\d+")
# Five digits, since an embedding has a row for each number up to the largest.
_NUMBERED = re.compile(r"S([1-9][0-9]{0,4})")
_SEX = re.compile(r"(?:Ses[0-9]{2}_)?([MF])")
_SEXES = {"M": 0, "F": 1}


def session_name(speaker: str, dialogue: str) -> str:
    """IEMOCAP's speakers as `Ses01_F`: in a conversation such as `Ses01M_impro01` of `F`, in any of
    an utterance's id such as `Ses01M_impro01_F000`; any other name as it is."""
    utterance = _UTTERANCE.fullmatch(speaker)
    if utterance:
        return f"{utterance[1]}_{utterance[2]}"
    session = _DIALOGUE.match(dialogue)
    return f"{session[1]}_{speaker}" if session and speaker in _SEXES else speaker


def numbered_name(number: int) -> str:
    """The name of a speaker that a file has as a number from 0."""
    return f"S{number + 1}"


def number_speakers(
    table: pa.Table, mode: Literal["conversation", "name", "published"], source: str
) -> tuple[npt.NDArray[np.int32], int]:
    """An index for each utterance's speaker, [N] int32, and how many indices there are.

    Args:
        table: conversations, sorted.
        mode: a value of `DataConfig.speakers`.
        source: what leads an error message.

    Raises:
        DataError: `published`, and a name has no published number.
    """
    if mode == "published":
        return _by_published_number(table, source)
    return _by_name(table) if mode == "name" else _by_first_turn(table)


def _by_published_number(table: pa.Table, source: str) -> tuple[npt.NDArray[np.int32], int]:
    speaker = table["speaker"].combine_chunks().dictionary_encode()
    names = speaker.dictionary.to_pylist()
    numbers = [_published_number(name) for name in names]
    unknown = [name for name, number in zip(names, numbers, strict=True) if number is None]
    if unknown:
        raise DataError(
            f"{source}: data.speakers is published, but speaker {shorten(unknown[0])!r} has no "
            "published "
            f"number ({len(unknown)} of {len(names)} have none): these are S1 to S99999, M and F, "
            "Ses01_M and so on; set data.speakers=conversation or data.speakers=name"
        )
    index = np.array(numbers, np.int32)[speaker.indices.to_numpy()]
    return index, int(index.max()) + 1


def _published_number(name: str) -> int | None:
    """The number of a name in the field's feature files; None where the name has none."""
    if name == NOBODY:
        return 0  # what the published models' argmax makes of a row without a mark
    numbered = _NUMBERED.fullmatch(name)
    if numbered:
        return int(numbered[1]) - 1
    sex = _SEX.fullmatch(name)
    return _SEXES[sex[1]] if sex else None


def _by_name(table: pa.Table) -> tuple[npt.NDArray[np.int32], int]:
    train = table.filter(pc.equal(table["split"], "train"))
    names = pa.array(sorted(pc.unique(train["speaker"]).to_pylist()), pa.string())
    index = pc.fill_null(pc.index_in(table["speaker"], value_set=names), len(names)).to_numpy()
    return cast(npt.NDArray[np.int32], index), int(index.max()) + 1


def _by_first_turn(table: pa.Table) -> tuple[npt.NDArray[np.int32], int]:
    dialogue = codes_of(table["dialogue_id"])
    speaker = codes_of(table["speaker"])
    pair = dialogue * (speaker.max() + 1) + speaker
    _, first, which = np.unique(pair, return_index=True, return_inverse=True)
    # Sorted by their first turn, the pairs of a conversation are adjacent, as its rows are.
    order = np.argsort(first)
    _, start, group = np.unique(dialogue[first[order]], return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int32)
    rank[order] = np.arange(len(first)) - start[group]
    return rank[which], int(rank.max()) + 1
