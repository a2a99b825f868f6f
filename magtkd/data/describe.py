"""What `magtkd data inspect` shows of a corpus."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from magtkd.data.columns import SPLITS, feature_widths
from magtkd.data.table import Corpus

__all__ = ["describe", "render"]

NUM_SPEAKERS_SHOWN = 10


def describe(corpus: Corpus) -> dict[str, Any]:
    """A corpus in numbers, as plain values.

    Keys: `source, fingerprint, splits, labels, unlabelled, num_speakers, speakers, features,
    warnings`; each of `splits` has `utterances, conversations` and the `shortest, median, longest`
    conversation in utterances; `labels` and `speakers` (the most frequent ones) count utterances by
    split, `unlabelled` those without a label.
    """
    table = corpus.table
    present = [split for split in SPLITS if pc.any(pc.equal(table["split"], split)).as_py()]
    return {
        "source": corpus.source,
        "fingerprint": corpus.fingerprint,
        "splits": {split: _lengths(corpus, split) for split in present},
        "labels": _counts(corpus, "label", present),
        "unlabelled": {split: _num_unlabelled(table, split) for split in present},
        "num_speakers": pc.count_distinct(table["speaker"]).as_py(),
        "speakers": _counts(corpus, "speaker", present, NUM_SPEAKERS_SHOWN),
        "features": feature_widths(table),
        "warnings": list(corpus.warnings),
    }


def _lengths(corpus: Corpus, split: str) -> dict[str, float]:
    dialogues = corpus.table.filter(pc.equal(corpus.table["split"], split))["dialogue_id"]
    lengths = pc.value_counts(dialogues).field("counts").to_numpy()
    return {
        "utterances": int(lengths.sum()),
        "conversations": len(lengths),
        "shortest": int(lengths.min()),
        "median": float(np.median(lengths)),
        "longest": int(lengths.max()),
    }


def _num_unlabelled(table: pa.Table, split: str) -> int:
    labels = table["label"].filter(pc.equal(table["split"], split))
    return int(labels.null_count)


def _counts(
    corpus: Corpus, column: str, present: list[str], limit: int | None = None
) -> dict[str, dict[str, int]]:
    """Utterances by value and split, the most frequent value first."""
    table = corpus.table.filter(pc.is_valid(corpus.table[column]))
    grouped = table.group_by([column, "split"]).aggregate([("split", "count")]).to_pylist()
    totals: Counter[str] = Counter()
    by_split: dict[str, dict[str, int]] = {}
    for row in sorted(grouped, key=lambda row: str(row[column])):
        totals[row[column]] += row["split_count"]
        counts = by_split.setdefault(row[column], dict.fromkeys(present, 0))
        counts[row["split"]] = row["split_count"]
    return {value: by_split[value] for value, _ in totals.most_common(limit)}


def render(corpus: Corpus) -> RenderableType:
    """The same as text, which a rich console prints."""
    facts = describe(corpus)
    widths = ", ".join(f"{name} {width}" for name, width in facts["features"].items())
    shown = len(facts["speakers"])
    speakers = f"speaker ({shown} of {facts['num_speakers']})"
    parts: list[RenderableType] = [
        Text(f"{facts['source']}  fingerprint {corpus.fingerprint[:16]}"),
        _grid("split", facts["splits"]),
        _grid("label", facts["labels"] | _context(facts["unlabelled"])),
        _grid(speakers, facts["speakers"]),
        Text(f"feature widths: {widths or 'no features'}"),
        *(Text(f"warning: {warning}", style="yellow") for warning in facts["warnings"]),
    ]
    return Group(*parts)


def _context(counts: dict[str, int]) -> dict[str, dict[str, int]]:
    """The line of the utterances that have no label, where there are any."""
    return {"(no label)": counts} if any(counts.values()) else {}


def _grid(title: str, rows: dict[str, dict[str, float]]) -> Table:
    grid = Table(title, box=None, header_style="bold")
    for name in next(iter(rows.values())):
        grid.add_column(name, justify="right")
    for name, values in rows.items():
        grid.add_row(Text(name), *map(str, values.values()))
    return grid
