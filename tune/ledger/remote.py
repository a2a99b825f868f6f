"""The ledger in an object store, which cannot append to a file: parts, by their bytes.

    STORE/sweeps/NAME/ledger/SERIES-FIRST-END.jsonl

A part has the bytes from FIRST up to END of the ledger, which are whole lines, and is never
changed. Each driver writes a series of its own, beginning with all that there was before; the
series of the last driver is the ledger, and others are ignored. Small parts are merged into larger
ones while the ledger grows, so that there are never many.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

from magtkd.errors import SweepError
from magtkd.store import Files
from tune.ledger.layout import SweepLayout
from tune.redact import redact

__all__ = ["RemoteLedger", "Series"]

MAX_PARTS = 32
ATTEMPTS = 5
"""How often parts are listed again where one is gone, because it was merged meanwhile."""

_PART = re.compile(r"(\d{6})-([0-9a-f]{8})-(\d{15})-(\d{15})\.jsonl")


@dataclass(frozen=True, order=True)
class Series:
    """What one driver writes: its number, one more than the last driver's, and the driver's id."""

    number: int
    driver: str

    def __str__(self) -> str:
        return f"{self.number:06}-{self.driver}"


@dataclass(frozen=True, order=True)
class _Part:
    series: Series
    first: int
    end: int

    @classmethod
    def of(cls, name: str) -> Self | None:
        found = _PART.fullmatch(name)
        if found is None:
            return None
        return cls(Series(int(found[1]), found[2]), int(found[3]), int(found[4]))

    @property
    def name(self) -> str:
        return f"{self.series}-{self.first:015}-{self.end:015}.jsonl"

    @property
    def size(self) -> int:
        return self.end - self.first


class RemoteLedger:
    """The parts of a sweep's ledger in a store.

    All methods raise `StorageLostError` where the store does not answer or refuses.
    """

    def __init__(self, layout: SweepLayout, files: Files) -> None:
        self._files, self._folder = files, f"{layout.remote_folder}/ledger"
        self.place = f"{redact(layout.remote)} ({self._folder})"
        """Where it is, for people."""
        self._series: Series | None = None
        self._parts: list[_Part] = []

    def exists(self) -> bool:
        """Whether there is anything of it."""
        return bool(self._list())

    def last_series(self) -> Series | None:
        """The series of the last driver.

        Raises:
            SweepError: two drivers have the same number.
        """
        series = sorted({part.series for part in self._list()})
        if len(series) > 1 and series[-1].number == series[-2].number:
            raise SweepError(
                f"ledger {self.place}: two drivers wrote it at once, {series[-2]} and "
                f"{series[-1]}; move the files of one of them away"
            )
        return series[-1] if series else None

    def read(self) -> bytes:
        """The whole ledger; nothing where there is none.

        Raises:
            SweepError: a part is missing or damaged.
        """
        for _ in range(ATTEMPTS):
            series = self.last_series()
            if series is None:
                return b""
            try:
                return b"".join(map(self._read, _chain(self._list(), series)))
            except FileNotFoundError:
                continue
        raise SweepError(f"ledger {self.place}: a part is missing; restore it from a copy")

    def begin(self, series: Series) -> None:
        """Begin a series; what is written next has all of the ledger."""
        self._series, self._parts = series, []

    def write(self, content: bytes) -> None:
        """Add bytes to the series, in a part of its own."""
        assert self._series is not None
        first = self._parts[-1].end if self._parts else 0
        part = _Part(self._series, first, first + len(content))
        self._files.write_file(f"{self._folder}/{part.name}", content)
        self._parts.append(part)

    def merge(self, read: Callable[[int, int], bytes]) -> None:
        """Merge small parts, where there are many.

        Args:
            read: gives the ledger's bytes from one position up to another.
        """
        if len(self._parts) <= MAX_PARTS:
            return
        assert self._series is not None
        first = _first_to_merge([part.size for part in self._parts])
        merged, small = self._parts[:first], self._parts[first:]
        whole = _Part(self._series, small[0].first, small[-1].end)
        self._files.write_file(f"{self._folder}/{whole.name}", read(whole.first, whole.end))
        self._parts = [*merged, whole]
        self._remove(small)

    def remove_others(self) -> None:
        """Remove what drivers before this one wrote; all of it is in this series."""
        assert self._series is not None
        self._remove([part for part in self._list() if part.series.number < self._series.number])

    def _remove(self, parts: Sequence[_Part]) -> None:
        for part in parts:
            self._files.remove_file(f"{self._folder}/{part.name}")

    def _list(self) -> list[_Part]:
        parts = map(_Part.of, self._files.list_files(self._folder))
        return [part for part in parts if part is not None]

    def _read(self, part: _Part) -> bytes:
        content = self._files.read_file(f"{self._folder}/{part.name}")
        if len(content) != part.size or not content.endswith(b"\n"):
            raise SweepError(
                f"ledger {self.place}: {part.name} is damaged: {len(content)} bytes; "
                "restore it from a copy"
            )
        return content


def _chain(parts: Sequence[_Part], series: Series) -> list[_Part]:
    """The parts of a series in order. Of those that begin at one place, the longest: it has what
    the others have."""
    longest = {part.first: part for part in sorted(parts) if part.series == series}
    chain, end = list[_Part](), 0
    last = max(part.end for part in longest.values())
    while end < last:
        if end not in longest:
            raise FileNotFoundError  # it was merged since the parts were listed
        chain.append(longest[end])
        end = longest[end].end
    return chain


def _first_to_merge(sizes: Sequence[int]) -> int:
    """From which part on to merge all: the first that is no larger than those after it together, so
    that a byte is written again only when the part that has it has doubled."""
    small = (index for index, size in enumerate(sizes) if size <= sum(sizes[index + 1 :]))
    return min(next(small, len(sizes)), len(sizes) - 2)
