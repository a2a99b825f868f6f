"""What came out of a sweep: its trials as rows, the best of them, and what it cost.

Test metrics are in a row only where the ledger says that they were revealed; nothing here ranks by
them.
"""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from magtkd.errors import StorageError, SweepError
from magtkd.pipeline import StageRecord
from tune.ledger.state import Objective, SweepState, TrialState

__all__ = ["FORMATS", "StageCost", "best", "sweep_cost", "trial_rows", "write_trials"]

Row = dict[str, Any]
Format = Literal["table", "csv", "json", "parquet"]
FORMATS: tuple[Format, ...] = ("table", "csv", "json", "parquet")


# --- rows -------------------------------------------------------------------------------------


def trial_rows(state: SweepState) -> list[Row]:
    """One row per trial in order of number: `sweep, trial, state, values, dev, test, stages`.

    `dev` and `test` are objects with `accuracy, weighted_f1, per_class`, or None: dev where the
    trial has none, test while it is sealed. `stages` maps a stage's name to its key.
    """
    return [_row(state, trial) for _, trial in sorted(state.trials.items())]


def best(state: SweepState, top: int | None = None) -> list[Row]:
    """The completed trials that are best on dev by the sweep's objectives.

    With one objective, the first `top` (1 where not given), the lower number first among equals.
    With several, the Pareto front in order of number, or the first `top` of it.

    Raises:
        SweepError: no trial has completed.
    """
    objectives = state.objectives
    scores = {
        trial.number: score
        for trial in state.trials.values()
        if trial.state == "completed" and (score := _score(trial, objectives)) is not None
    }
    if not scores:
        raise SweepError(_none_completed(state))
    if len(objectives) == 1:
        ranked = sorted(scores, key=lambda number: (-scores[number][0], number))[: top or 1]
    else:
        ranked = sorted(_pareto_front(scores))[:top]
    return [_row(state, state.trials[number]) for number in ranked]


def _row(state: SweepState, trial: TrialState) -> Row:
    return {
        "sweep": state.name,
        "trial": trial.number,
        "state": trial.state,
        "values": trial.values,
        "dev": trial.dev,
        "test": trial.test,
        "stages": {stage: record.key for stage, record in trial.stages.items()},
    }


def _score(trial: TrialState, objectives: Sequence[Objective]) -> tuple[float, ...] | None:
    """The objectives with signs such that more is better; None where one is not a number."""
    if trial.objectives is None or None in trial.objectives:
        return None
    pairs = zip(trial.objectives, objectives, strict=True)
    return tuple(float(value or 0) * (1 if one.mode == "max" else -1) for value, one in pairs)


def _pareto_front(scores: Mapping[int, tuple[float, ...]]) -> list[int]:
    """The trials that no other one beats in one objective without losing in another."""
    front: list[int] = []
    # In falling order nothing that comes later can beat what is on the front already.
    for number in sorted(scores, key=lambda number: scores[number], reverse=True):
        score = scores[number]
        beaten = any(
            scores[other] != score
            and all(a >= b for a, b in zip(scores[other], score, strict=True))
            for other in front
        )
        if not beaten:
            front.append(number)
    return front


def _none_completed(state: SweepState) -> str:
    counts = ", ".join(f"{number} {name}" for name, number in sorted(state.count().items()))
    message = f"sweep {state.name!r}: no trial has completed: {counts or 'none was started'}"
    if state.closed == "interrupted":
        return f"{message}; go on with --resume {state.name}"
    return f"{message}; {'see the messages of `trials`' if state.closed else 'wait for the first'}"


# --- cost -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StageCost:
    """What one stage cost over all trials, in seconds, and what reuse saved.

    `seconds_trained` holds the stopped ones too: they left no artifact, but they were paid for.
    `num_unknown` counts reuses of which the ledger does not say what training would have taken.
    """

    num_trained: int = 0
    num_stopped: int = 0
    num_reused: int = 0
    seconds_trained: float = 0.0
    seconds_saved: float = 0.0
    num_unknown: int = 0

    def to_json(self) -> dict[str, Any]:
        """The numbers as a JSON object."""
        return asdict(self)


def sweep_cost(state: SweepState) -> dict[str, StageCost]:
    """The cost of each stage; a reuse saved what training its key took."""
    known = {record.key: record.seconds for _, record in _records(state, "trained")}
    names = dict.fromkeys(stage for trial in state.trials.values() for stage in trial.stages)
    return {name: _stage_cost(state, name, known) for name in names}


def _stage_cost(state: SweepState, name: str, known: Mapping[str, float]) -> StageCost:
    trained = [record for stage, record in _records(state, "trained") if stage == name]
    reused = [record for stage, record in _records(state, "reused") if stage == name]
    stopped = [record for stage, record in _records(state, "stopped") if stage == name]
    costs = [known.get(r.key) if r.saved is None else r.saved for r in reused]
    return StageCost(
        num_trained=len(trained),
        num_stopped=len(stopped),
        num_reused=len(reused),
        seconds_trained=sum(record.seconds for record in [*trained, *stopped]),
        seconds_saved=sum(cost for cost in costs if cost is not None),
        num_unknown=costs.count(None),
    )


def _records(state: SweepState, outcome: str) -> Iterator[tuple[str, StageRecord]]:
    for trial in state.trials.values():
        for stage, record in trial.stages.items():
            if record.outcome == outcome:
                yield stage, record


# --- formats ----------------------------------------------------------------------------------


def write_trials(
    rows: Sequence[Row], format: Format = "table", target: str | Path | IO[str] | None = None
) -> None:
    """Write rows as a table for people, or as CSV, JSON or Parquet.

    In CSV and Parquet every leaf is a column: `values.audio.distill.temperature`, `dev.accuracy`,
    `dev.per_class.joy.f1`, `stages.fusion`.

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


def _write_table(rows: Sequence[Row], stream: IO[str]) -> None:
    is_terminal = stream.isatty()
    table = Table(box=None, pad_edge=False)
    for header, cells in _table_columns(rows).items():
        # On a terminal a long name stands on several lines, so that every value is seen whole.
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


def _table_columns(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Headers and cells."""
    columns = {"trial": [str(row["trial"]) for row in rows]}
    columns["state"] = [row["state"] for row in rows]
    for split in ("dev", "test") if any(row["test"] for row in rows) else ("dev",):
        for name, key in (("weighted F1", "weighted_f1"), ("accuracy", "accuracy")):
            columns[f"{split} {name}"] = [_metric(row[split], key) for row in rows]
    for names in _value_columns(rows):
        header = names[0] + "".join(f" = {_short(name, names[0])}" for name in names[1:])
        columns[header] = [_cell(row["values"].get(names[0])) for row in rows]
    return columns


def _short(name: str, first: str) -> str:
    """A tied name without the end that it shares with the first: `video` of
    `video.distill.temperature` after `audio.distill.temperature`."""
    parts, others = name.split("."), first.split(".")
    while len(parts) > 1 and others and parts[-1] == others[-1]:
        parts.pop()
        others.pop()
    return ".".join(parts)


def _value_columns(rows: Sequence[Row]) -> list[list[str]]:
    """Names of values; tied ones, which are the same floats everywhere, together."""
    columns: dict[tuple[str, ...], list[str]] = {}
    for name in dict.fromkeys(name for row in rows for name in row["values"]):
        told = [row["values"].get(name) for row in rows]
        is_float = any(isinstance(value, float) for value in told)
        key = tuple(map(repr, told)) if is_float else (name,)
        columns.setdefault(key, []).append(name)
    return list(columns.values())


def _metric(split: Mapping[str, Any] | None, name: str) -> str:
    value = (split or {}).get(name)
    return "" if value is None else f"{100 * value:.2f}"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)


def _write_csv(rows: Sequence[Row], stream: IO[str]) -> None:
    columns = _columns(rows)
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))


def _write_json(rows: Sequence[Row], stream: IO[str]) -> None:
    json.dump(list(rows), stream, indent=2, allow_nan=False, ensure_ascii=False)
    stream.write("\n")


def _write_parquet(rows: Sequence[Row], stream: IO[str]) -> None:
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


def _columns(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """The leaves of all rows by dotted name, None where a row lacks one."""
    flat = [dict(_leaves(row)) for row in rows]
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


def _array(cells: Sequence[Any]) -> pa.Array:
    """A column of one type; values of several kinds (`64` and `auto`) become their JSON."""
    if all(cell is None for cell in cells):
        return pa.array(cells, pa.string())
    try:
        return pa.array(cells)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if cell is None else json.dumps(cell) for cell in cells])
