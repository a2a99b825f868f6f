"""The owner of a sweep in an object store, which has no locks: a file that the driver replaces
every few seconds.

    STORE/sweeps/NAME/owner.json    {"driver": id, "process": words, "beat": number}

A driver that finds the file watches it: while `beat` changes, the other is alive. This compares no
clocks. A driver that finds another's id in the file has lost the sweep, and stops; but where it is
that of the driver that it followed, which was stopped in the middle of writing and woke up, it
writes its own again, which the other finds.
"""

from __future__ import annotations

import logging
import os
import socket
import time
import uuid

import msgspec

from magtkd.errors import OwnerLostError
from magtkd.store import Files
from tune.ledger.layout import SweepLayout

__all__ = ["BEAT_SECONDS", "STALE_SECONDS", "Owner", "OwnerFile", "read_owner"]

BEAT_SECONDS = 5.0
STALE_SECONDS = 30.0
"""A driver whose file has not changed for so long is taken to be dead."""
SETTLE_SECONDS = 1.0
"""How long a new owner waits for another that came at the same moment."""


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    """What the file has."""

    driver: str
    process: str
    """For people, as in a lock."""
    time: int
    """Milliseconds, by the driver's clock: for people as well."""
    beat: int = 0


class OwnerFile:
    """The owner file of a sweep, for one driver.

    All methods raise `StorageLostError` where the store does not answer or refuses.
    """

    def __init__(self, layout: SweepLayout, files: Files) -> None:
        self._layout, self._files = layout, files
        self._name = f"{layout.remote_folder}/owner.json"
        self.driver = uuid.uuid4().hex[:8]
        self._beat, self._last = 0, 0.0
        self._followed: str | None = None

    def read(self) -> Owner | None:
        """The owner; None where there is none."""
        try:
            return msgspec.json.decode(self._files.read_file(self._name), type=Owner)
        except FileNotFoundError:
            return None
        except ValueError:
            return Owner(driver="?", process="another process", time=0)

    def take(self) -> Owner | None:
        """Become the owner, which takes 30 seconds where another one may be alive.

        Returns:
            None, or the owner that is alive.
        """
        found = self.read()
        if found is not None and not self._is_dead(found):
            changed = self._watch(found)
            if changed is not None:
                return changed
        self._followed = found.driver if found is not None else None
        self._write()
        time.sleep(SETTLE_SECONDS)
        other = self.read()
        if other is not None and other.driver != self.driver:
            return other
        self._layout.owner_file.write_text(self.driver, encoding="utf-8")
        return None

    def _is_dead(self, found: Owner) -> bool:
        """Whether the owner wrote to this very folder, whose lock this process holds now."""
        try:
            return self._layout.owner_file.read_text(encoding="utf-8") == found.driver
        except OSError:
            return False

    def _watch(self, found: Owner) -> Owner | None:
        logging.getLogger(__name__).warning(
            "sweep %r: waiting for %.0f s to see whether %s is alive",
            self._layout.name,
            STALE_SECONDS,
            found.process,
        )
        deadline = time.monotonic() + STALE_SECONDS
        while time.monotonic() < deadline:
            time.sleep(1.0)
            now = self.read()
            if now is None:
                return None  # it has ended in an orderly way
            if now != found:
                return now
        return None

    def check(self) -> None:
        """Whether this driver is the owner still, and a sign of life.

        Raises:
            OwnerLostError: it is another.
        """
        owner = self.read()
        if owner is not None and owner.driver not in {self.driver, self._followed}:
            raise OwnerLostError(
                f"sweep {self._layout.name!r}: {owner.process} has taken it over, because this "
                f"driver gave no sign of life for {STALE_SECONDS:.0f} s",
                "leave it to that one, or end it and resume here",
            )
        is_other = owner is not None and owner.driver != self.driver
        if is_other or time.monotonic() - self._last >= BEAT_SECONDS:
            self._write()

    def release(self) -> None:
        """The driver ends."""
        owner = self.read()
        if owner is not None and owner.driver == self.driver:
            self._files.remove_file(self._name)

    def _write(self) -> None:
        self._beat += 1
        owner = Owner(
            driver=self.driver,
            process=f"process {os.getpid()} on {socket.gethostname()}",
            time=time.time_ns() // 1_000_000,
            beat=self._beat,
        )
        self._files.write_file(self._name, msgspec.json.encode(owner))
        self._last = time.monotonic()


def read_owner(layout: SweepLayout) -> str | None:
    """The process that runs a sweep in an object store, in words, by its clock and this one's; None
    where there is none, or the last sign of life is old.

    Raises:
        StorageLostError: the store does not answer or refuses.
    """
    owner = OwnerFile(layout, Files(layout.remote)).read() if layout.remote else None
    if owner is None or abs(time.time() - owner.time / 1000) > STALE_SECONDS:
        return None
    return owner.process[:200]
