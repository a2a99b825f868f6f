"""Ending, removing and tidying up: what a storage has that nobody needs any more."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from magtkd.errors import InputError, StorageError, SweepError
from magtkd.pipeline import STAGES
from magtkd.store import Files, Store
from tune.ledger import (
    SweepLayout,
    find_confirmations,
    open_ledger,
    read_sweep,
    sessions_folder,
)
from tune.results import driver_of, names_in
from tune.tracking import remove_runs

__all__ = ["Unused", "end_driver", "remove_sweep", "remove_unused", "unused_artifacts"]

DRIVER = re.compile(r"process (\d+) on (\S+)")


def end_driver(layout: SweepLayout) -> str:
    """Ask a sweep's driver on this machine to save what runs and end, as Ctrl-C does; the driver.

    Raises:
        SweepError: no driver runs it, or one on another machine does.
    """
    read_sweep(layout)  # refuses what there is not
    driver = driver_of(layout)
    if driver is None:
        raise SweepError(f"sweep {layout.name!r}: no driver runs it")
    found = DRIVER.match(driver)
    if found is None or found[2] != socket.gethostname():
        raise SweepError(
            f"sweep {layout.name!r}: {driver} runs it; call this there, or magtkd slurm --stop "
            f"{layout.name} where it is a job"
        )
    os.kill(int(found[1]), signal.SIGUSR1)
    return driver


def remove_sweep(layout: SweepLayout, storage: str, *, with_runs: bool = False) -> None:
    """Remove a sweep, its confirmations and its sessions. Artifacts stay, see `unused_artifacts`.

    Killed in between, it can be called again: the ledger goes last.

    Args:
        layout: where it is.
        storage: where its artifacts are.
        with_runs: also remove its runs from MLflow; else they stay, with their files.

    Raises:
        SweepError: there is no such sweep, or a driver runs it.
        StorageError: something cannot be removed.
    """
    state = read_sweep(layout)
    places = [*find_confirmations(layout, state.sweep_id), layout]
    states = [read_sweep(place) for place in places]
    locked = [open_ledger(place, resume=True) for place in places]  # refuses what runs
    try:
        store = Store(storage)
        for one in states:
            store.remove_folder(sessions_folder(one.sweep_id))
        if with_runs:
            remove_runs(layout.tracking_uri, state.sweep_id)
    finally:
        for ledger in locked:
            ledger.close()
    if layout.remote:
        Files(layout.remote).remove_folder(layout.remote_folder)
    try:
        _remove_here(layout, keep_files=not with_runs)
    except OSError as error:
        raise StorageError(f"{layout.folder}: cannot remove: {error.strerror}") from None


def _remove_here(layout: SweepLayout, *, keep_files: bool) -> None:
    kept = {layout.mlflow_artifacts} if keep_files else set()
    entries = sorted(layout.folder.iterdir(), key=lambda entry: entry == layout.ledger)
    for entry in entries:
        if entry in kept:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    if not any(layout.folder.iterdir()):
        layout.folder.rmdir()


@dataclass(frozen=True)
class Unused:
    """An artifact that no ledger of its storage names."""

    stage: str
    key: str
    num_bytes: int
    age: float
    """Seconds since it was written."""


def unused_artifacts(storage: str, older_than: float) -> list[Unused]:
    """The artifacts of a storage that none of its ledgers names: of sweeps that were removed, of
    `magtkd train`, or of a sweep that runs and has not recorded them yet.

    Args:
        storage: a folder or an address.
        older_than: seconds; younger ones are left out.

    Raises:
        SweepError: there is no such folder, or a ledger cannot be read, so that nothing is known to
            be unused.
        StorageLostError: an object store does not answer or refuses.
    """
    used = _used(storage)
    files, found = Files(storage), []
    for stage in STAGES:
        for key in files.list_folders(f"artifacts/{stage}"):
            if key in used[stage]:
                continue
            num_bytes, written = files.size_and_time(f"artifacts/{stage}/{key}")
            age = time.time() - written
            if age >= older_than:
                found.append(Unused(stage, key, num_bytes, age))
    return found


def _used(storage: str) -> defaultdict[str, set[str]]:
    used = defaultdict[str, set[str]](set)
    for name in names_in(storage):
        layout = SweepLayout.of(storage, name)
        try:
            state = read_sweep(layout)
            states = [
                state,
                *(read_sweep(one) for one in find_confirmations(layout, state.sweep_id)),
            ]
        except InputError as error:
            raise SweepError(
                f"{error}; until then it is not known which artifacts are unused"
            ) from None
        for one in states:
            for trial in one.trials.values():
                for stage, record in trial.stages.items():
                    used[stage].add(record.key)
    return used


def remove_unused(storage: str, unused: Iterable[Unused]) -> None:
    """Remove artifacts from a storage."""
    files = Files(storage)
    for one in unused:
        files.remove_folder(f"artifacts/{one.stage}/{one.key}")
