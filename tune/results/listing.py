"""All sweeps of a storage, one line each."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import IO, Any

from rich.table import Table

from magtkd.errors import InputError, NoneCompletedError, SweepError, shorten
from magtkd.store import Files
from tune.ledger import SweepLayout, is_remote, storage_root
from tune.results.formats import metric_header, print_table, shown_score
from tune.results.rows import best
from tune.results.status import read_status

__all__ = ["SweepLine", "list_sweeps", "names_in", "print_sweeps"]


@dataclass(frozen=True, kw_only=True)
class SweepLine:
    """A sweep of a list; times are in milliseconds."""

    sweep: str
    state: str
    """As in `Status`; `damaged` where its ledger cannot be read."""
    trials: int = 0
    ended: int = 0
    metric: str | None = None
    best: float | None = None
    """Of the first objective, on dev."""
    opened: int | None = None
    last_event: int | None = None
    process: str | None = None
    why: str | None = None
    """What is wrong with its ledger."""

    def to_json(self) -> dict[str, Any]:
        """The line as a JSON object."""
        return asdict(self)


def names_in(storage: str) -> list[str]:
    """The names of the sweeps in a storage, sorted.

    Raises:
        SweepError: there is no such folder.
        StorageLostError: an object store does not answer or refuses.
    """
    root = storage_root(storage)
    if is_remote(storage):
        found = set(Files(storage).list_folders("sweeps"))
    elif not root.is_dir():
        raise SweepError(f"storage {root}: there is no such folder; give the sweeps' --storage")
    else:
        found = set()
    return sorted(found | set(SweepLayout(root, "any").neighbours))


def list_sweeps(storage: str) -> list[SweepLine]:
    """All sweeps of a storage, the latest first.

    Raises:
        SweepError: there is no such folder.
        StorageLostError: an object store does not answer or refuses.
    """
    lines = [_line(storage, name) for name in names_in(storage)]
    return sorted(lines, key=lambda line: line.last_event or 0, reverse=True)


def _line(storage: str, name: str) -> SweepLine:
    try:
        layout = SweepLayout.of(storage, name)
        status, state = read_status(layout, storage)
        metric = state.objectives[0].metric
    except InputError as error:
        return SweepLine(sweep=name, state="damaged", why=str(error))
    try:
        rows = best(state, 1)
    except NoneCompletedError:
        rows = []
    return SweepLine(
        sweep=name,
        state=status.state,
        trials=len(state.trials),
        ended=len(state.ended),
        metric=metric,
        best=rows[0].objectives[metric] if rows else None,
        opened=status.opened,
        last_event=status.last_event,
        process=status.process,
    )


def print_sweeps(lines: list[SweepLine], stream: IO[str]) -> None:
    """Print them as a table for people."""
    table = Table(box=None, pad_edge=False)
    for header in ("sweep", "state"):
        table.add_column(header)
    for header in ("trials", "best"):
        table.add_column(header, justify="right")
    for header in ("objective", "began", "last event"):
        table.add_column(header, no_wrap=True)
    for one in lines:
        what = one.state if one.why is None else f"{one.state}: {shorten(one.why)}"
        running = one.trials - one.ended
        table.add_row(
            one.sweep,
            what,
            f"{one.ended}" + (f" + {running}" if running else ""),
            "" if one.metric is None or one.best is None else shown_score(one.metric, one.best),
            "" if one.metric is None else metric_header(one.metric),
            _shown_time(one.opened),
            _shown_time(one.last_event),
        )
    print_table(table, stream)


def _shown_time(milliseconds: int | None) -> str:
    if milliseconds is None:
        return ""
    return f"{datetime.fromtimestamp(milliseconds / 1000):%Y-%m-%d %H:%M}"
