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
from tune.results.rows import TrialRow

__all__ = [
    "FORMATS",
    "metric_header",
    "print_table",
    "shown_score",
    "table_columns",
    "write_trials",
]

Format = Literal["table", "csv", "json", "parquet"]
FORMATS: tuple[Format, ...] = ("table", "csv", "json", "parquet")


def write_trials(
    rows: Sequence[TrialRow], format: Format = "table", target: str | Path | IO[str] | None = None
) -> None:
    """Write rows as a table for people, or as CSV, JSON or Parquet.

    In CSV and Parquet every leaf is a column: `values.audio.distill.temperature`, `dev.accuracy`,
    `dev.per_class.joy`, `objectives.dev/loss`, `stages.fusion`; `changes` is one of JSON.

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
    for header, cells in table_columns(rows).items():
        # On a terminal, wrap long names, so that no value is cut.
        folded = re.sub(r"( = |[ ._])", lambda found: found[0].rstrip() + "\n", header)
        table.add_column(
            folded if is_terminal else header,
            justify="left" if header == "state" else "right",
            min_width=max([4, *map(len, cells)]),
            overflow="fold",
        )
    for line in zip(*table_columns(rows).values(), strict=True):
        table.add_row(*line)
    print_table(table, stream)


def print_table(table: Table, stream: IO[str]) -> None:
    """Print a table whole, however wide it is.

    Args:
        table: the table.
        stream: a terminal, a pipe or a file.
    """
    console = Console(file=stream, markup=False, highlight=False)
    needed = console.measure(table, options=console.options.update(width=10**5))
    # A pipe has no width, and a terminal that is too narrow wraps lines: nothing is cut off.
    fits = needed.minimum if stream.isatty() else needed.maximum
    console.width = max(console.width, fits)
    console.print(table)


def table_columns(rows: Sequence[TrialRow]) -> dict[str, list[str]]:
    """Headers and cells: what ranks the trials first."""
    columns = {"trial": [str(row.trial) for row in rows]}
    columns["state"] = [f"{row.state}{', changed' if row.changes else ''}" for row in rows]
    for metric in dict.fromkeys(metric for row in rows for metric in row.objectives):
        columns[metric_header(metric)] = [
            shown_score(metric, row.objectives.get(metric)) for row in rows
        ]
    for split in ("dev", "test") if any(row.test for row in rows) else ("dev",):
        for name in ("weighted_f1", "accuracy"):
            metric = f"{split}/{name}"
            cells = [shown_score(metric, getattr(getattr(row, split), name, None)) for row in rows]
            columns.setdefault(metric_header(metric), cells)
    columns["epoch"] = ["" if row.epoch is None else str(row.epoch) for row in rows]
    for names in _value_columns(rows):
        header = names[0] + "".join(f" = {_short(name, names[0])}" for name in names[1:])
        columns[header] = [_change(row, names[0]) for row in rows]
    return columns


def metric_header(metric: str) -> str:
    """A metric as people write it: `dev weighted F1`, `dev F1 of joy`."""
    split, _, name = metric.partition("/")
    if name.startswith("f1/"):
        return f"{split} F1 of {name.removeprefix('f1/')}"
    return f"{split} {name.replace('_f1', ' F1')}"


def shown_score(metric: str, value: float | None) -> str:
    """A loss as it is, anything else in percent."""
    if value is None:
        return ""
    return f"{value:.4f}" if metric.endswith("/loss") else f"{100 * value:.2f}"


def _change(row: TrialRow, name: str) -> str:
    """A value; where population based training changed it, the first and the last one."""
    last = _cell(row.values[name]) if name in row.values else ""
    first = _cell(row.base[name]) if row.base is not None and name in row.base else last
    return last if first == last else f"{first} -> {last}"


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
    trees = [row.to_json() for row in rows]
    flat = [dict(_leaves({**tree, "changes": json.dumps(tree["changes"])})) for tree in trees]
    names = ["sweep", "trial", "state", "epoch"]
    names += _found(flat, "objectives.")
    names += _found(flat, "values.")
    if any(row.changes for row in rows):
        names += [*_found(flat, "base."), "changes"]
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
