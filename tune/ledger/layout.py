"""Where a sweep's ledger is, and what lies beside it for others to read."""

from __future__ import annotations

import re
from pathlib import Path

from magtkd.errors import SweepError

__all__ = ["LIVE_FILE", "sweep_folder"]

LIVE_FILE = "live.json"
"""What goes on, as the driver said last; gone when the sweep ends."""


def sweep_folder(storage: str, name: str) -> Path:
    """The folder of a sweep's ledger: `STORAGE/sweeps/NAME`.

    Where artifacts go to a remote address, ledgers stay on this machine, in `magtkd-results`: an
    object store cannot append.

    Raises:
        SweepError: the name is none that a configuration can have, such as `../other`.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise SweepError(
            f"sweep {name[:100]!r}: not a name; use letters, digits, dot, underscore and hyphen"
        )
    local = storage.removeprefix("file://")
    root = Path("magtkd-results") if "://" in local else Path(local).expanduser()
    return root.absolute() / "sweeps" / name
