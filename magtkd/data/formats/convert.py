"""From a release, in whichever format the field uses, to a table: what `magtkd data convert` does.

A format is a way to recognise a source and a way to read it; see `FORMATS`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from magtkd.data.columns import REQUIRED
from magtkd.data.describe import describe, render
from magtkd.data.formats.compm import find_compm, read_compm
from magtkd.data.formats.conversion import (
    Conversion,
    Options,
    describe_names,
    keep_labelled,
    refuse_unused,
)
from magtkd.data.formats.dailydialog import find_dailydialog, read_dailydialog
from magtkd.data.formats.emorynlp import find_emorynlp, read_emorynlp
from magtkd.data.formats.erc_json import find_erc_json, read_erc_json
from magtkd.data.formats.feature_pickles import find_features, read_features
from magtkd.data.formats.iemocap import find_iemocap, read_iemocap
from magtkd.data.formats.labels import IEMOCAP_FOUR
from magtkd.data.formats.m3ed import find_m3ed, read_m3ed
from magtkd.data.formats.media_csv import find_media_csv, read_media_csv
from magtkd.data.formats.meld_raw import find_meld, read_meld_raw
from magtkd.data.formats.tabular import find_table, read_table
from magtkd.data.parquet import check_output, write_parquet
from magtkd.data.table import Corpus, make_corpus
from magtkd.errors import DataError, and_more, shorten

__all__ = ["FORMATS", "Summary", "convert", "find_format"]

NUM_ENTRIES_SHOWN = 8
# Folders that are looked into for a release that the source itself is not.
NUM_NEIGHBOURS = 100


@dataclass(frozen=True)
class Format:
    """`find` returns what of the format a source has, or None; `looks_for` describes it for
    messages; `uses` are the attributes of `Options` that `read` uses."""

    looks_for: str
    find: Callable[[Path], str | None]
    read: Callable[[Path, Options], Conversion]
    uses: frozenset[str] = frozenset({"on_missing"})


_WITH_CLASSES = frozenset({"on_missing", "classes", "unlabelled"})
FORMATS = {
    "meld": Format("a folder with train_sent_emo.csv", find_meld, read_meld_raw),
    "iemocap": Format(
        "a folder with Session1/dialog/EmoEvaluation", find_iemocap, read_iemocap, _WITH_CLASSES
    ),
    "media-csv": Format(
        "a folder with IEMOCAP_train.csv or train_meld_emo.csv",
        find_media_csv,
        read_media_csv,
        _WITH_CLASSES,
    ),
    "emorynlp": Format("a folder with emorynlp_train_final.csv", find_emorynlp, read_emorynlp),
    "erc-json": Format(
        "a folder with train_data.json", find_erc_json, read_erc_json, frozenset({"unlabelled"})
    ),
    "dailydialog": Format(
        "a folder with train/dialogues_train.txt",
        find_dailydialog,
        read_dailydialog,
        frozenset(),
    ),
    "compm": Format(
        "a folder with MELD_train.txt, EMORY_train.txt, iemocap_train.txt or dailydialog_train.txt",
        find_compm,
        read_compm,
        frozenset(),
    ),
    "m3ed": Format(
        "a folder with annotation.json and splitInfo",
        find_m3ed,
        read_m3ed,
        frozenset({"unlabelled"}),
    ),
    "features": Format(
        "a pickle of features, or a folder with first_stage_train_features.pkl",
        find_features,
        read_features,
        frozenset(option.name for option in fields(Options)),
    ),
    "table": Format(
        "a .csv, .tsv or .jsonl file, or one of these packed as .gz",
        find_table,
        read_table,
        frozenset({"unlabelled"}),
    ),
}


@dataclass(frozen=True)
class Summary:
    """What a conversion did: `corpus` is what was written to `out`."""

    format: str
    out: Path
    conversion: Conversion
    corpus: Corpus

    def facts(self) -> dict[str, Any]:
        """Plain values: `format, out, read, written, dropped, listed, notes`, and those of
        `describe`."""
        return {
            "format": self.format,
            "out": str(self.out),
            "read": self.conversion.num_read,
            "written": self.corpus.table.num_rows,
            "dropped": {why: count for why, count in self.conversion.dropped.items() if count},
            "listed": {what: [*names] for what, names in self.conversion.listed.items() if names},
            "notes": list(self.conversion.notes),
            **describe(self.corpus),
        }

    def render(self) -> RenderableType:
        """The same as text, which a rich console prints."""
        facts = self.facts()
        counts = Table("utterances", "", box=None, header_style="bold")
        counts.add_row(f"read as {self.format}", str(facts["read"]))
        for why, count in facts["dropped"].items():
            counts.add_row(Text(f"dropped: {why}"), str(count))
        counts.add_row(Text(f"written to {self.out}"), str(facts["written"]))
        listed = (
            Text(f"{what} ({len(names)}): {describe_names(names)}", style="yellow")
            for what, names in facts["listed"].items()
        )
        notes = (Text(f"note: {note}") for note in self.conversion.notes)
        return Group(counts, *listed, *notes, render(self.corpus))


def find_format(source: str | Path) -> str:
    """The name of the format that a source has.

    Raises:
        DataError: it is not there, has none, or more than one.
    """
    source = Path(source)
    if not os.path.exists(source):
        raise DataError(f"{source}: there is no such file or folder; give a release")
    found = {name: what for name, form in FORMATS.items() if (what := form.find(source))}
    if len(found) == 1:
        return next(iter(found))
    if found:
        both = "; ".join(f"{name} ({what})" for name, what in found.items())
        raise DataError(f"{source}: more than one format: {both}; choose one by --format")
    wanted = "; ".join(f"{name}: {form.looks_for}" for name, form in FORMATS.items())
    raise DataError(
        f"{source}: no known format; found {_entries(source)}{_suggest(source, FORMATS)}; looked "
        f"for {wanted}; of anything else, write a .csv with the columns {', '.join(REQUIRED)} "
        "(docs/formats.md)"
    )


def _suggest(source: Path, names: Iterable[str]) -> str:
    """A question with the folders, one level up or down, that have one of the formats named."""
    # An absolute path where a relative one has no parent to name.
    parent = source.parent if source.name and source.parent.name else source.absolute().parent
    found = [str(folder) for folder in (parent, *_folders(source)) if _has_format(folder, names)]
    return f" (did you mean {describe_names(found)}?)" if found else ""


def _folders(source: Path) -> list[Path]:
    try:
        entries = sorted(os.listdir(source))
    except OSError:
        return []
    return [source / name for name in entries if os.path.isdir(source / name)][:NUM_NEIGHBOURS]


def _has_format(folder: Path, names: Iterable[str]) -> bool:
    try:
        return any(FORMATS[name].find(folder) for name in names)
    except (DataError, OSError):  # only a guess, so nothing to complain of
        return False


def convert(
    source: str | Path, out: str | Path, options: Options | None = None, format: str | None = None
) -> Summary:
    """Read a release, check it as a table, and write it to a Parquet file, all of it or nothing.

    Args:
        format: a key of `FORMATS`; recognised by the source's content if None.

    Raises:
        DataError: the source is not what its format needs, breaks a rule of `validate_table`, an
            option has no meaning for it, or the file cannot be written.
    """
    source, out = Path(source), Path(out)
    options = options or Options()
    if format is not None and format not in FORMATS:
        raise DataError(f"--format {shorten(format)}: choose one of {', '.join(FORMATS)}")
    if not os.path.exists(source):
        raise DataError(f"{source}: there is no such file or folder; give a release")
    if os.path.isfile(out) and os.path.samefile(source, out):
        raise DataError(f"{out}: is the source itself; write to another file")
    check_output(out)  # reading may take minutes
    name = format or find_format(source)
    if format is not None and FORMATS[name].find(source) is None:
        raise DataError(
            f"{source}: not {name}: that is {FORMATS[name].looks_for}; found {_entries(source)}"
            f"{_suggest(source, [name])}"
        )
    refuse_unused(options, FORMATS[name].uses, f"{source}: read as {name}")
    conversion = FORMATS[name].read(source, options)
    table, num_unlabelled = keep_labelled(conversion.table, options)
    dropped = {**conversion.dropped, "without a label": num_unlabelled}
    conversion = replace(conversion, dropped=dropped)
    _check_classes(table, options, source)
    corpus = make_corpus(table.select([*_filled(table)]), str(source))
    write_parquet(corpus.table, out)
    return Summary(name, out, conversion, corpus)


def _check_classes(table: pa.Table, options: Options, source: Path) -> None:
    others = sorted(set(table["label"].to_pylist()) - {None, *IEMOCAP_FOUR})
    if options.classes == 4 and others:
        raise DataError(
            f"{source}: --classes 4 is for IEMOCAP's labels, and {others[0]} is there; leave it out"
        )


def _filled(table: pa.Table) -> Iterator[str]:
    """Columns with content: times and paths that no utterance has are left out."""
    for name in table.column_names:
        if table.num_rows == 0 or table[name].null_count < table.num_rows:
            yield name


def _entries(source: Path) -> str:
    if not os.path.isdir(source):
        return f"a file {source.name}"
    try:
        names = sorted(name for name in os.listdir(source) if not name.startswith("."))
    except OSError as error:
        return f"a folder that cannot be read ({error.strerror})"
    return and_more(names, NUM_ENTRIES_SHOWN) or "nothing in it"
