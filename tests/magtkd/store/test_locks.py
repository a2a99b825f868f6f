from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from magtkd.errors import StorageError
from magtkd.store import is_locked, release_lock, take_lock

HOLD = """
import sys, time
from pathlib import Path
from magtkd.store import take_lock
assert take_lock(Path(sys.argv[1])) is not None
print("held", flush=True)
time.sleep(60)
"""


def test_a_lock_is_held_once_until_it_is_released(tmp_path: Path) -> None:
    path = tmp_path / "folder/lock"
    assert not is_locked(path)
    assert not path.exists()  # asking makes nothing
    lock = take_lock(path)
    assert lock is not None
    assert path.read_text().startswith(f"process {os.getpid()} on ")
    assert is_locked(path)
    assert take_lock(path) is None
    release_lock(lock, path)
    assert not path.exists()
    again = take_lock(path)
    assert again is not None
    os.close(again)


def test_a_lock_dies_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert is_locked(path)
        assert take_lock(path) is None
        holder.send_signal(signal.SIGKILL)
    assert not is_locked(path)
    lock = take_lock(path)
    assert lock is not None
    os.close(lock)


def test_a_lock_on_a_file_that_was_removed_meanwhile_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, opened = tmp_path / "lock", os.open

    def open_then_remove(*arguments: object, **options: object) -> int:
        """As if the holder had released the lock between the opening and the locking."""
        monkeypatch.setattr(os, "open", opened)
        lock = opened(*arguments, **options)  # type: ignore[arg-type]
        path.unlink()
        return lock

    monkeypatch.setattr(os, "open", open_then_remove)
    lock = take_lock(path)
    assert lock is not None
    assert os.path.samestat(os.fstat(lock), path.stat())
    os.close(lock)


def test_a_lock_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match=r"file/lock: cannot write: .*; choose another folder"):
        take_lock(tmp_path / "file/lock")
