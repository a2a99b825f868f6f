"""Sweeps by their names: opening the ledger of a new one, resuming one, reading one."""

from __future__ import annotations

import contextlib
import difflib

from magtkd.errors import InputError, SweepError, and_more, shorten
from magtkd.store import Files
from tune.ledger.events import SweepOpened
from tune.ledger.file import Ledger, first_event, fold, pull_ledger, read_events
from tune.ledger.layout import SweepLayout
from tune.ledger.remote import RemoteLedger
from tune.ledger.state import SweepState

__all__ = [
    "check_unused",
    "find_confirmations",
    "find_opened",
    "open_ledger",
    "read_sweep",
    "sweeps_on",
]


def open_ledger(layout: SweepLayout, *, resume: bool = False) -> Ledger:
    """The ledger of a sweep: a new one, or one to continue.

    Raises:
        SweepError: a new sweep's name exists already, a sweep to resume does not exist, or another
            process is running it.
        StorageError: the folder cannot be written.
        StorageLostError: an object store does not answer or refuses.
    """
    if resume:
        _check_opened(layout)
    ledger = Ledger(layout)
    if not resume and ledger.num_bytes:
        ledger.close()
        raise _taken(layout)
    return ledger


def check_unused(layout: SweepLayout) -> None:
    """Refuse a new sweep whose name exists already, before anything is started for it.

    Raises:
        SweepError: there is a sweep in this folder.
    """
    is_here = layout.ledger.is_file() and first_event(layout.ledger) is not None
    if is_here or (layout.remote and RemoteLedger(layout, Files(layout.remote)).exists()):
        raise _taken(layout)


def read_sweep(layout: SweepLayout) -> SweepState:
    """The state of a sweep, whether or not it is running.

    Raises:
        SweepError: there is no such sweep, or its ledger is damaged.
        StorageLostError: an object store does not answer or refuses.
    """
    _check_opened(layout)
    return fold(read_events(layout.ledger))


def sweeps_on(layout: SweepLayout, fingerprint: str, most: int) -> list[SweepState]:
    """The latest sweeps beside one that are on the same table, as far as their ledgers are here and
    whole; nothing is brought from an object store for that.

    Args:
        layout: the one sweep's.
        fingerprint: the table's.
        most: how many.
    """
    found: list[tuple[float, SweepLayout]] = []
    for name in layout.neighbours:
        other = SweepLayout(layout.root, name, layout.remote)
        with contextlib.suppress(SweepError, OSError):
            opened = first_event(other.ledger)
            if opened is not None and opened.fingerprint == fingerprint:
                found.append((other.ledger.stat().st_mtime, other))
    states = []
    for _, other in sorted(found, key=lambda pair: pair[0], reverse=True)[:most]:
        with contextlib.suppress(InputError):
            state = fold(read_events(other.ledger))
            if state.sweep:  # a configuration that this version knows
                states.append(state)
    return states


def find_opened(layout: SweepLayout) -> SweepOpened | None:
    """The first event of a sweep that there is something of to read or resume.

    Raises:
        SweepError: the ledger is damaged, or another sweep's.
        StorageLostError: an object store does not answer or refuses.
    """
    pull_ledger(layout)
    # A driver that died before its first event left a ledger without a sweep.
    opened = first_event(layout.ledger) if layout.ledger.is_file() else None
    if opened is not None and opened.name != layout.name:
        raise SweepError(
            f"sweep {layout.name!r}: {layout.ledger} is that of sweep {shorten(opened.name)!r}; a "
            f"sweep's folder keeps its name: call it {shorten(opened.name)!r} again"
        )
    return opened


def find_confirmations(layout: SweepLayout, sweep_id: str) -> list[SweepLayout]:
    """The confirmations of a sweep that were begun, in their order.

    Raises:
        SweepError: the ledger of one is damaged, or that of another sweep.
        StorageLostError: an object store does not answer or refuses.
    """
    found: list[SweepLayout] = []
    while (opened := find_opened(one := layout.confirmation(len(found) + 1))) is not None:
        if opened.race is None or opened.race.sweep_id != sweep_id:
            raise SweepError(
                f"{one.ledger}: is not a confirmation of this sweep {layout.name!r}, but of an "
                f"earlier one of that name; move {one.folder} away"
            )
        found.append(one)
    return found


def _check_opened(layout: SweepLayout) -> None:
    if find_opened(layout) is None:
        raise _unknown(layout)


def _taken(layout: SweepLayout) -> SweepError:
    return SweepError(
        f"sweep {layout.name!r}: exists already in {layout.place}; "
        f"continue it with --resume {layout.name}, or give this one another name"
    )


def _unknown(layout: SweepLayout) -> SweepError:
    if not layout.remote and not layout.root.is_dir():
        return SweepError(
            f"sweep {layout.name!r}: there is no folder {layout.root}; give its --storage"
        )
    if layout.folder.is_dir():
        return SweepError(
            f"sweep {layout.name!r}: has not begun: {layout.ledger} has no event yet; "
            "start it with its file, or wait for the job that does"
        )
    names = layout.neighbours
    if layout.remote:
        names = sorted({*names, *Files(layout.remote).list_folders("sweeps")} - {layout.name})
    near = difflib.get_close_matches(layout.name, names, n=3, cutoff=0.6)
    if near:
        hint = f"did you mean {' or '.join(map(repr, near))}?"
    else:
        verb = "is" if len(names) == 1 else "are"
        hint = f"there {verb} {and_more(names, 5)}" if names else "there is none yet"
    return SweepError(f"sweep {layout.name!r}: not found in {layout.place}; {hint}")
