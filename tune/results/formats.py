"""Rows of trials in the formats that people and programs read."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Literal

from rich.console import Console
from rich.table import Table

from magtkd.errors import StorageError, SweepError
from magtkd.metrics import Scores
from tune.results.rows import TrialRow

__all__ = ["FORMATS", "write_trials"]

Format = Literal["table", "csv", "json", "parquet"]
FORMATS: tuple[Format, ...] = ("table", "csv", "json", "parquet")


def write_trials(
    rows: Sequence[TrialRow], format: Format = "table", target: str | Path | IO[str] | None = None
) -> None:
    """Write rows as a table for people, or as CSV, JSON or Parquet.

    In CSV and Parquet every leaf is a column: `values.audio.distill.temperature`, `dev.accuracy`,
    `dev.per_class.joy`, `stages.fusion`.

    Args:
        rows: from `trial_rows` or `best`.
        format: one of `FORMATS`.
        target: a file, or a text stream; Parquet goes to the bytes below it. None is stdout.

    Raises:
        SweepError: an unknown format.
        StorageError: the file cannot be written.
    """
    if format not in FORMATS:
        raise SweepError(f"format {format!r}: choose one of {', '.join(FORMATS)}")
    if isinstance(target, str | Path):
        try:
            with Path(target).open("w", encoding="utf-8", newline="") as stream:
                _WRITERS[format](rows, stream)
        except OSError as error:
            raise StorageError(f"{target}: cannot write: {error.strerror}") from None
        return
    _WRITERS[format](rows, target or sys.stdout)


def _write_table(rows: Sequence[TrialRow], stream: IO[str]) -> None:
    is_terminal = stream.isatty()
    table = Table(box=None, pad_edge=False)
    for header, cells in _table_columns(rows).items():
        # On a terminal, wrap long names, so that no value is cut.
        folded = re.sub(r"( = |[ ._])", lambda found: found[0].rstrip() + "\n", header)
        table.add_column(
            folded if is_terminal else header,
            justify="left" if header == "state" else "right",
            min_width=max([4, *map(len, cells)]),
            overflow="fold",
        )
    for line in zip(*_table_columns(rows).values(), strict=True):
        table.add_row(*line)
    console = Console(file=stream, markup=False, highlight=False)
    needed = console.measure(table, options=console.options.update(width=10**5))
    # A pipe has no width, and a terminal that is too narrow wraps lines: nothing is cut off.
    console.width = max(console.width, needed.minimum if is_terminal else needed.maximum)
    console.print(table)


def _table_columns(rows: Sequence[TrialRow]) -> dict[str, list[str]]:
    """Headers and cells."""
    columns = {"trial": [str(row.trial) for row in rows]}
    columns["state"] = [row.state.value for row in rows]
    for split in ("dev", "test") if any(row.test for row in rows) else ("dev",):
        for name, key in (("weighted F1", "weighted_f1"), ("accuracy", "accuracy")):
            columns[f"{split} {name}"] = [_metric(getattr(row, split), key) for row in rows]
    for names in _value_columns(rows):
        header = names[0] + "".join(f" = {_short(name, names[0])}" for name in names[1:])
        columns[header] = [
            _cell(row.values[names[0]]) if names[0] in row.values else "" for row in rows
        ]
    return columns


def _short(name: str, first: str) -> str:
    """A tied name without the end that it shares with the first: `video` of
    `video.distill.temperature` after `audio.distill.temperature`."""
    parts, others = name.split("."), first.split(".")
    while len(parts) > 1 and others and parts[-1] == others[-1]:
        parts.pop()
        others.pop()
    return ".".join(parts)


def _value_columns(rows: Sequence[TrialRow]) -> list[list[str]]:
    """Names of values; tied ones, which are the same floats everywhere, together."""
    columns: dict[tuple[str, ...], list[str]] = {}
    for name in dict.fromkeys(name for row in rows for name in row.values):
        cells = [row.values.get(name) for row in rows]
        is_float = any(isinstance(value, float) for value in cells)
        key = tuple(map(repr, cells)) if is_float else (name,)
        columns.setdefault(key, []).append(name)
    return list(columns.values())


def _metric(scores: Scores | None, name: str) -> str:
    value = getattr(scores, name, None)
    return "" if value is None else f"{100 * value:.2f}"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "null" if value is None else str(value)


def _write_csv(rows: Sequence[TrialRow], stream: IO[str]) -> None:
    columns = _columns(rows)
    for name, cells in columns.items():
        value = name.removeprefix("values.")
        if value != name:  # a null that was chosen is no value that is not there
            pairs = zip(rows, cells, strict=True)
            columns[name] = [
                "null" if cell is None and value in row.values else cell for row, cell in pairs
            ]
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))


def _write_json(rows: Sequence[TrialRow], stream: IO[str]) -> None:
    json.dump(
        [row.to_json() for row in rows], stream, indent=2, allow_nan=False, ensure_ascii=False
    )
    stream.write("\n")


def _write_parquet(rows: Sequence[TrialRow], stream: IO[str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({name: _array(cells) for name, cells in _columns(rows).items()})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    stream.flush()
    # A text stream over bytes: a file or stdout.
    stream.buffer.write(sink.getvalue())  # type: ignore[attr-defined]


_WRITERS = {
    "table": _write_table,
    "csv": _write_csv,
    "json": _write_json,
    "parquet": _write_parquet,
}


def _columns(rows: Sequence[TrialRow]) -> dict[str, list[Any]]:
    """The leaves of all rows by dotted name, None where a row lacks one."""
    flat = [dict(_leaves(row.to_json())) for row in rows]
    names = ["sweep", "trial", "state"]
    names += _found(flat, "values.")
    for split in ("dev", "test"):
        names += [f"{split}.accuracy", f"{split}.weighted_f1", *_found(flat, f"{split}.per_class.")]
    names += _found(flat, "stages.")
    return {name: [leaves.get(name) for leaves in flat] for name in names}


def _found(flat: Iterable[Mapping[str, Any]], prefix: str) -> list[str]:
    return list(
        dict.fromkeys(name for leaves in flat for name in leaves if name.startswith(prefix))
    )


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, json.dumps(value) if isinstance(value, list) else value


def _array(cells: Sequence[Any]) -> Any:
    """An Arrow column of one type; values of several kinds (`64` and `auto`) become their JSON."""
    import pyarrow as pa

    if all(cell is None for cell in cells):
        return pa.array(cells, pa.string())
    try:
        return pa.array(cells)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if cell is None else json.dumps(cell) for cell in cells])
