"""Repair of text whose Windows-1252 punctuation was decoded wrongly.

Releases of MELD differ in their damage: single Windows-1252 bytes in UTF-8 files, control
characters such as U+0092, written-out escapes such as `\\x92`, UTF-8 read as Windows-1252 (three
characters for one apostrophe), and apostrophes lost to a question mark inside a word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from magtkd.data.delimited import encoding_of

__all__ = ["Repairs", "decode_bytes", "repair_text", "whole_characters"]

_SURROGATE = 0xDC00


def _from_windows(byte: int) -> str:
    """The character of a byte in Windows-1252; its five unassigned bytes are dropped."""
    return bytes([byte]).decode("cp1252", errors="ignore")


_WINDOWS = {byte: _from_windows(byte) for byte in range(0x80, 0xA0)}
_CHARACTERS = {
    **_WINDOWS,
    **{_SURROGATE + byte: _from_windows(byte) for byte in range(0x80, 0x100)},
    0xA0: " ",
    0xFEFF: "",
}
_BYTES = {character: byte for byte, character in _WINDOWS.items() if character}
_CONTINUATION = re.escape("".join(_BYTES)) + "\u0080-\u00bf"
_MISREAD = re.compile(f"[\u00c2-\u00df][{_CONTINUATION}]|[\u00e0-\u00ef][{_CONTINUATION}]{{2}}")
_ESCAPE = re.compile(r"\\(?:x|u00)([89a-fA-F][0-9a-fA-F])")
_LOST_APOSTROPHE = re.compile(r"(?<=[A-Za-z])\?(?=(?:s|t|d|m|ve|re|ll)\b)")
_HALF = re.compile("[\ud800-\udfff]")
_LOST_DASH = re.compile(r"(?<=[a-z])\?(?=[a-z])")
_SUSPICIOUS = re.compile("[\u0080-\u00a0\u00c2-\u00f4\ufeff\udc80-\udcff\\\\]|[A-Za-z][?][a-z]")


def decode_bytes(raw: bytes) -> str:
    """The text of a file, in UTF-8 where its first bytes name no other encoding; bytes that are
    not UTF-8 stay as surrogates for `repair_text` to read."""
    encoding = encoding_of(raw)
    errors = "surrogateescape" if encoding == "utf-8-sig" else "replace"
    return raw.decode(encoding, errors=errors)


def whole_characters(text: str) -> str:
    """The text with the halves of characters (surrogates, which no file can hold) put together, or
    where only one is left, replaced by U+FFFD."""
    if not _HALF.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def repair_text(text: str) -> str:
    """The text with its Windows-1252 damage undone; sound text comes back as it is."""
    if not _SUSPICIOUS.search(text):
        return text
    text = _ESCAPE.sub(lambda match: chr(int(match[1], 16)), text)
    # Misread characters first: control characters and no-break spaces may be their bytes.
    text = _MISREAD.sub(_read_again, text).translate(_CHARACTERS)
    text = _LOST_APOSTROPHE.sub("’", text)
    return _LOST_DASH.sub("—", text)


@dataclass
class Repairs:
    """Repairs the texts of a release, and counts those that it changed."""

    num_texts: int = 0

    def text(self, text: str) -> str:
        """An utterance's text, repaired."""
        repaired = repair_text(text)
        self.num_texts += repaired != text
        return repaired

    def notes(self) -> Iterator[str]:
        """What was done, where anything was."""
        if self.num_texts:
            yield f"{self.num_texts} texts had damaged characters, which were repaired"


def _read_again(match: re.Match[str]) -> str:
    raw = bytes(_BYTES.get(character, ord(character)) for character in match[0])
    character = raw.decode(errors="replace")
    # An accented letter before two quotes is a legal sequence too, but for a character of no text
    # that was ever in Windows-1252.
    return character if character.translate(_WINDOWS).encode("cp1252", "ignore") else match[0]
