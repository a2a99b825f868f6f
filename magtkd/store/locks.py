"""Locks on files: held by a process until it lets go or dies, however it dies."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from pathlib import Path

from magtkd.errors import StorageError

__all__ = ["is_locked", "is_still", "release_lock", "take_lock"]


def take_lock(path: Path, *, patience: float = 0.05) -> int | None:
    """A descriptor of a lock file that this process holds until it closes it or dies.

    Args:
        path: the file, which is made.
        patience: seconds to wait for a process that only tests the lock, and holds it for a moment.

    Returns:
        None where another process holds the lock.

    Raises:
        StorageError: the file cannot be created or locked.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise _failed(path, error) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            if time.monotonic() < deadline:
                time.sleep(0.01)
                continue
            return None
        except OSError as error:
            os.close(lock)
            raise _failed(path, error) from None
        if is_still(lock, path):
            break
        os.close(lock)  # its last holder removed the file between the two calls
    os.ftruncate(lock, 0)
    os.write(lock, f"process {os.getpid()} on {socket.gethostname()}".encode())
    return lock


def release_lock(lock: int, path: Path) -> None:
    """Give a lock back and remove its file, so that a store does not fill with them."""
    path.unlink(missing_ok=True)
    os.close(lock)


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock; writes nothing."""
    try:
        lock = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False


def is_still(descriptor: int, path: Path) -> bool:
    """Whether a path is still the file that was opened there.

    Raises:
        OSError: it cannot be known.
    """
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except (FileNotFoundError, NotADirectoryError):
        return False


def _failed(path: Path, error: OSError) -> StorageError:
    return StorageError(
        f"{path}: cannot write: {error.strerror}; choose another folder with --storage"
    )
