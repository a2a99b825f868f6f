"""Where a sweep's ledger is."""

from __future__ import annotations

from pathlib import Path

__all__ = ["sweep_folder"]


def sweep_folder(storage: str, name: str) -> Path:
    """The folder of a sweep's ledger: `STORAGE/sweeps/NAME`.

    Where artifacts go to a remote address, ledgers stay on this machine, in `magtkd-results`: an
    object store cannot append.
    """
    local = storage.removeprefix("file://")
    root = Path("magtkd-results") if "://" in local else Path(local).expanduser()
    return root.absolute() / "sweeps" / name
