"""Turns: of several trials with one fusion, one trains it, and the others wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from magtkd.store import Store
from tune.engine.claims import claim

__all__ = ["FusionTurns"]


class FusionTurns:
    """Who trains a fusion now. The next in turn finds the artifact of the one before.

    Args:
        store: where the artifacts will be; other sweeps on it take their turns too.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._ends: dict[str, asyncio.Event] = {}

    async def take(self, key: str | None) -> Callable[[], None]:
        """Wait for the turn on a fusion's key; None is a key that is not shared.

        Returns:
            a call that ends the turn; a second call does nothing.
        """
        if key is None:
            return lambda: None
        while key in self._ends:
            await self._ends[key].wait()
        event = self._ends[key] = asyncio.Event()
        release = await claim(self._store, "fusion", key)

        def end() -> None:
            if not event.is_set():
                event.set()
                del self._ends[key]
                release()

        return end
