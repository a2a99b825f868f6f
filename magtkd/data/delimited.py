"""Texts as people save them: packed, in UTF-8 or UTF-16, with commas, semicolons or tabs."""

from __future__ import annotations

import codecs
import csv
import gzip
import zlib
from collections.abc import Sequence
from pathlib import Path

from magtkd.errors import DataError

__all__ = ["encoding_of", "find_delimiter", "is_blank", "plain_suffix", "read_bytes"]

DELIMITERS = ",;\t|"
# UTF-32's mark begins with UTF-16's.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def plain_suffix(path: Path) -> str:
    """The end of a file's name in lower case, such as `.csv`, that of gzip left out."""
    suffix = path.suffix.lower()
    return Path(path.stem).suffix.lower() if suffix == ".gz" else suffix


def read_bytes(path: Path) -> bytes:
    """A file's content, unpacked where its name ends in `.gz`.

    Raises:
        DataError: it cannot be read or unpacked.
    """
    try:
        raw = path.read_bytes()
        return gzip.decompress(raw) if path.suffix.lower() == ".gz" else raw
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise DataError(f"{path}: is not gzip, or a part of it: fetch it again") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; check the release") from None


def encoding_of(raw: bytes) -> str:
    """The encoding that a text's first bytes name; UTF-8 where they name none."""
    return next((name for mark, name in _MARKS if raw.startswith(mark)), "utf-8-sig")


def find_delimiter(text: str) -> str:
    """What separates the cells of a text's header."""
    try:
        return csv.Sniffer().sniff(text.partition("\n")[0], DELIMITERS).delimiter
    except csv.Error:  # a single column
        return ","


def is_blank(cells: Sequence[str | None]) -> bool:
    """Whether a row has nothing in it, as spreadsheets leave below a table."""
    return not any(cell and cell.strip() for cell in cells)
