"""The prompt of an utterance: its conversation up to it, then `</s> Now <speaker> feels <mask>`.

Every turn is led by its speaker's token. A speaker has a token of their own where train shows them
in more than one conversation; the others share the unknown speakers' tokens, numbered by their
first turn within the conversation, so that two of them still differ. On a corpus with
one speaker a video all are unknown, in train as in test.

Turns and prompts are sequences of anything: token numbers in training, words in a test.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import TypeVar

__all__ = [
    "NUM_UNKNOWN",
    "build_prompt",
    "conversation_rows",
    "know_speakers",
    "normalise_name",
    "speaker_token",
    "speaker_tokens",
    "turn_speakers",
    "unknown_token",
]

MAX_KNOWN = 64
NUM_UNKNOWN = 4
"""Tokens of unknown speakers; the last one stands for all further ones of a conversation."""

T = TypeVar("T")


def normalise_name(name: str) -> str:
    """A speaker's name as its token shows it: lower case, runs of other characters than letters
    and digits as one underscore; empty where there are none."""
    return re.sub(r"[\W_]+", "_", name.casefold()).strip("_")


def speaker_token(name: str) -> str:
    """The token of a normalised name. The colon keeps a speaker called `s` or `mask` apart from
    the model's own tokens."""
    return f"<speaker:{name}>"


def unknown_token(number: int) -> str:
    """The token of a conversation's unknown speaker of this number, from 1."""
    return f"<unknown:{min(number, NUM_UNKNOWN)}>"


def speaker_tokens(known: Sequence[str]) -> tuple[str, ...]:
    """All speaker tokens of a model: the unknown speakers', then those of the known names."""
    unknown = [unknown_token(number) for number in range(1, NUM_UNKNOWN + 1)]
    return (*unknown, *map(speaker_token, known))


def know_speakers(
    dialogues: Sequence[str], speakers: Sequence[str], *, max_known: int = MAX_KNOWN
) -> tuple[str, ...]:
    """Normalised names of the speakers that get a token of their own.

    Args:
        dialogues: dialogue of each utterance of train.
        speakers: speaker of each utterance of train.
        max_known: keep so many, those with the most utterances.
    """
    names = [normalise_name(speaker) for speaker in speakers]
    met: defaultdict[str, set[str]] = defaultdict(set)
    for dialogue, name in zip(dialogues, names, strict=True):
        met[name].add(dialogue)
    count = Counter(name for name in names if name and len(met[name]) > 1)
    # Ties by name: the choice must not depend on the order of the table.
    return tuple(sorted(count, key=lambda name: (-count[name], name))[:max_known])


def turn_speakers(speakers: Sequence[str], known: Sequence[str]) -> list[str]:
    """The speaker token of each turn of one conversation."""
    tokens = {name: speaker_token(name) for name in known}
    names = [normalise_name(speaker) for speaker in speakers]
    unknown = dict.fromkeys(name for name in names if name not in tokens)
    tokens |= {name: unknown_token(number) for number, name in enumerate(unknown, start=1)}
    return [tokens[name] for name in names]


def conversation_rows(splits: Sequence[str], dialogues: Sequence[str]) -> Iterator[list[int]]:
    """Rows of each conversation, in the order of the table."""
    rows: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for row, key in enumerate(zip(splits, dialogues, strict=True)):
        rows[key].append(row)
    yield from rows.values()


def build_prompt(
    turns: Sequence[Sequence[T]], suffix: Sequence[T], *, context: int | None, max_length: int
) -> list[T]:
    """The prompt of the last of these turns, cut on the left; the suffix always stays.

    Args:
        turns: tokens of each turn of the conversation up to and including the utterance, oldest
            first, led by the speaker's token.
        suffix: what asks for the emotion; at most `max_length` tokens.
        context: turns before the utterance to show; None shows all.
        max_length: tokens in all.
    """
    room = max_length - len(suffix)
    assert room >= 0, f"the suffix has {len(suffix)} tokens, the prompt at most {max_length}"
    first = 0 if context is None else max(0, len(turns) - 1 - context)
    shown: list[Sequence[T]] = []
    # Newest first, so that a long conversation costs no more than what fits.
    for turn in reversed(turns[first:]):
        if room <= 0:
            break
        shown.append(turn[-room:])
        room -= len(turn)
    return [token for turn in reversed(shown) for token in turn] + list(suffix)
