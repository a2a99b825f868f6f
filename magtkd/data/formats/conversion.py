"""What the readers of releases have in common: their options, their result, files that are missing.

A reader takes the path of a release and `Options` and returns a `Conversion`. Media paths in its
table are relative to the release's folder, with slashes, so that a table does not depend on where
the release is. Where utterances share a file, each is the part from its `start` to its `end`.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from magtkd.data.columns import SCHEMA
from magtkd.data.delimited import find_delimiter, is_blank, read_bytes
from magtkd.data.formats.repair import decode_bytes, whole_characters
from magtkd.errors import DataError, and_more, first_line, shorten

__all__ = [
    "MISSING",
    "UNLABELLED",
    "Conversion",
    "Options",
    "describe_names",
    "keep_labelled",
    "make_table",
    "note_of_test",
    "read_csv",
    "refuse_unused",
    "settle",
    "whole_number",
]

MISSING = ("error", "drop", "keep")
UNLABELLED = ("drop", "keep")
NUM_NAMES_SHOWN = 5


@dataclass(frozen=True)
class Options:
    """What the user may choose; see `refuse_unused` for what does not concern a source.

    Attributes:
        on_missing: what becomes of utterances without a file: `error` refuses a release that lacks
            more than is known to be missing from it, `drop` leaves such utterances out, `keep`
            keeps them without a path.
        text: which of four text features: `roberta1` to `roberta4`, `mean` or `concat`.
        labels: names of numbered labels: a data set's name, or names separated by commas.
        classes: of IEMOCAP: 6, or 4, which takes excited as happy and drops frustrated.
        unlabelled: what becomes of utterances without a label, or with one that is not used: `drop`
            leaves them out, `keep` keeps them as context. By default those without a label are
            kept, and those of labels that are not used are dropped.
        distilled: of the first stage's file: the students that were taught, else those that were
            not.
    """

    on_missing: str = "error"
    text: str | None = None
    labels: str | None = None
    classes: int = 6
    distilled: bool = True
    unlabelled: str | None = None

    def __post_init__(self) -> None:
        if self.unlabelled not in (None, *UNLABELLED):
            raise DataError(
                f"--unlabelled {shorten(self.unlabelled)}: choose {', '.join(UNLABELLED)}"
            )
        if self.on_missing not in MISSING:
            raise DataError(f"--on-missing {shorten(self.on_missing)}: choose {', '.join(MISSING)}")
        if self.classes not in {4, 6}:
            raise DataError(f"--classes {self.classes}: choose 6 or 4")


@dataclass(frozen=True)
class Conversion:
    """A release as a table, and what became of it.

    Attributes:
        table: not yet validated.
        num_read: utterances that the release has.
        dropped: how many of them are not in the table, by reason.
        listed: names of files or utterances to report, by what is wrong with them.
        notes: choices that were made, in words.
    """

    table: pa.Table
    num_read: int
    dropped: Mapping[str, int] = field(default_factory=dict)
    listed: Mapping[str, Sequence[str]] = field(default_factory=dict)
    notes: Sequence[str] = ()


def refuse_unused(options: Options, used: Collection[str], what: str) -> None:
    """Refuse options that were chosen but change nothing.

    Args:
        used: names of the attributes that count.
        what: the source and its format, which leads the message.

    Raises:
        DataError: one that does not count is not at its default.
    """
    for option in fields(options):
        value = getattr(options, option.name)
        if value != option.default and option.name not in used:
            name = option.name.replace("_", "-")
            shown = f"--no-{name}" if value is False else f"--{name} {value}"
            raise DataError(f"{what}: {shown} has no meaning here; leave it out")


def make_table(rows: Sequence[Mapping[str, Any]], source: str | Path) -> pa.Table:
    """A table of rows that have the same columns, all of them the schema's; no features.

    Raises:
        DataError: a number is too large for its column.
    """
    rows = [{name: _whole(value) for name, value in row.items()} for row in rows]
    names = [name for name in SCHEMA.names if name in (rows[0] if rows else SCHEMA.names[:8])]
    schema = pa.schema([SCHEMA.field(name) for name in names])
    try:
        return pa.Table.from_pylist(rows, schema)
    except (pa.ArrowInvalid, OverflowError) as error:
        raise DataError(f"{source}: {first_line(error)}; renumber the utterances") from None


def _whole(value: Any) -> Any:
    return whole_characters(value) if isinstance(value, str) else value


def whole_number(value: str | int | float) -> int:
    """A whole number as tables have it, such as `3`, and `3.0` where pandas wrote the column.

    Raises:
        ValueError: it is none.
    """
    try:
        return int(value) if not isinstance(value, float) else _without_rest(value)
    except ValueError:
        return _without_rest(float(value))


def _without_rest(value: float) -> int:
    if not value.is_integer():
        raise ValueError
    return int(value)


def describe_names(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are."""
    return and_more(names, NUM_NAMES_SHOWN)


def settle(
    table: pa.Table,
    missing: Mapping[int, str],
    options: Options,
    source: Path,
    known: frozenset[int] = frozenset(),
) -> tuple[pa.Table, int]:
    """The table without what `options` drops, and how many utterances that is.

    Args:
        table: paths that are missing are already null.
        missing: name of the missing file by row.
        known: rows whose file is known to be missing from the release, no matter who downloads it.

    Raises:
        DataError: files are missing that the release has, and `on_missing` is `error`.
    """
    surprising = [name for row, name in missing.items() if row not in known]
    if surprising and options.on_missing == "error":
        raise DataError(
            f"{source}: {len(surprising)} of {table.num_rows} utterances lack a file: "
            f"{describe_names(surprising)}; complete the release, or choose --on-missing drop "
            "(without these utterances) or keep (without their paths)"
        )
    if options.on_missing != "drop" or not missing:
        return table, 0
    keep = [row for row in range(table.num_rows) if row not in missing]
    return table.take(pa.array(keep, pa.int64())), len(missing)


def keep_labelled(table: pa.Table, options: Options) -> tuple[pa.Table, int]:
    """The table without the utterances that have no label, where they are to be dropped, and how
    many these are."""
    if options.unlabelled != "drop":
        return table, 0
    is_blank = pc.equal(pc.utf8_trim_whitespace(pc.fill_null(table["label"], "")), "")
    return table.filter(pc.invert(is_blank)), pc.sum(is_blank).as_py()


def note_of_test(before: pa.Table, after: pa.Table) -> list[str]:
    """A note, where `settle` dropped utterances of test: others report on all of them."""
    tests = [table.filter(pc.equal(table["split"], "test")).num_rows for table in (before, after)]
    if tests[0] == tests[1]:
        return []
    return [
        f"test has {tests[1]} of its {tests[0]} utterances, so its scores are of another test set "
        "than published ones; --on-missing keep keeps the text of all"
    ]


def read_csv(
    path: Path, needed: Mapping[str, Sequence[str]]
) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of a CSV file as (place, values by the names of `needed`).

    Args:
        path: a file with commas, semicolons or tabs, in UTF-8 or in the encoding that its first
            bytes name, or damaged as `decode_bytes` describes.
        needed: for each value the names its column may have; in any case, underscores ignored. A
            value whose names include an empty one may be absent, and then no row has it.

    Raises:
        DataError: it cannot be read, or lacks a column.
    """
    text = decode_bytes(read_bytes(path))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=find_delimiter(text))
    try:
        columns = _columns(path, next(reader, []), needed)
        for record in reader:
            if not is_blank(record):
                cells = {
                    name: record[index] if index < len(record) else ""
                    for name, index in columns.items()
                }
                yield f"{path}, line {reader.line_num}", cells
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: not CSV: {error}") from None


def _columns(path: Path, header: list[str], needed: Mapping[str, Sequence[str]]) -> dict[str, int]:
    plain = [_plain(name) for name in header]
    columns = {}
    for name, spellings in needed.items():
        wanted = [_plain(spelling) for spelling in spellings]
        index = next((plain.index(one) for one in wanted if one and one in plain), None)
        if index is not None:
            columns[name] = index
        elif "" not in spellings:
            raise DataError(
                f"{path}: lacks the column {spellings[0]}; it has "
                f"{and_more(header, 20) or 'none'}; "
                "take the file as it was distributed"
            )
    twice = [name for name, count in Counter(plain).items() if name and count > 1]
    if twice:
        raise DataError(f"{path}: has the column {shorten(twice[0])!r} more than once; keep one")
    return columns


def _plain(name: str) -> str:
    return name.strip().replace("_", "").replace(" ", "").lower()
