"""What a page is made of: sections of blocks, which the template shows by their kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias

from tune.report.charts import Chart
from tune.report.chosen import Excerpt

__all__ = ["Block", "Code", "Excerpts", "Figure", "Notes", "Part", "Section", "Table"]


@dataclass(frozen=True)
class Figure:
    """A chart with its caption."""

    kind: ClassVar[str] = "figure"
    chart: Chart


@dataclass(frozen=True)
class Table:
    """Rows of words below a header."""

    kind: ClassVar[str] = "table"
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""


@dataclass(frozen=True)
class Notes:
    """Sentences, a line each."""

    kind: ClassVar[str] = "notes"
    lines: Sequence[str]


@dataclass(frozen=True)
class Code:
    """Text to copy; with a title, folded away."""

    kind: ClassVar[str] = "code"
    text: str
    title: str = ""


@dataclass(frozen=True)
class Excerpts:
    """Errors, with the conversations around them."""

    kind: ClassVar[str] = "excerpts"
    excerpts: Sequence[Excerpt]
    caption: str


Block: TypeAlias = Figure | Table | Notes | Code | Excerpts


@dataclass(frozen=True)
class Section:
    """Blocks under a heading."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Part:
    """All of a page about one sweep, or about several together."""

    title: str
    subtitle: str
    tiles: Sequence[tuple[str, str]] = ()
    """Words and a number or two, each."""
    sections: list[Section] = field(default_factory=list)

    @property
    def charts(self) -> list[Chart]:
        """Its figures, in order."""
        blocks = [block for section in self.sections for block in section.blocks]
        return [block.chart for block in blocks if isinstance(block, Figure)]
