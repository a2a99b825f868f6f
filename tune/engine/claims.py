"""Claims on stages: of several sweeps on one store, one trains a stage, and the others wait for it.

A claim is a lock on a file of the store. It dies with the process that holds it. An object store
has no locks: there two sweeps at once may both train a stage, and the first artifact counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from magtkd.errors import StorageError
from magtkd.store import Store, release_lock, take_lock

__all__ = ["claim", "remove_free_claims"]

POLL_SECONDS = 0.2


async def claim(
    store: Store, stage: str, key: str, on_wait: Callable[[], None] = lambda: None
) -> Callable[[], None]:
    """Wait until no one else trains a stage; returns a call that releases the claim.

    Args:
        store: where the stage's artifact will be.
        stage: the stage's name.
        key: its key.
        on_wait: called once if another process has it.
    """
    path = store.local_path(f"locks/{stage}-{key}.lock")
    if path is None:
        return lambda: None
    waited = False
    while True:
        try:
            lock = take_lock(path, patience=0.0)
        except StorageError:  # no locks on this file system, or no room for one more file
            return lambda: None
        if lock is not None:
            held = lock
            return lambda: release_lock(held, path)
        if not waited:
            waited = True
            on_wait()
        await asyncio.sleep(POLL_SECONDS)


def remove_free_claims(store: Store) -> None:
    """Remove the files of claims whose process died; those that are held stay."""
    for name in store.list_files("locks"):
        path = store.local_path(f"locks/{name}")
        if path is not None and (lock := take_lock(path, patience=0.0)) is not None:
            release_lock(lock, path)
