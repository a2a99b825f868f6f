"""Files and folders below one root, on this machine or on an object store."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

import pyarrow.fs as pafs

from magtkd.errors import StorageError, StorageLostError
from magtkd.store.faults import is_passing, reason_of
from magtkd.store.filesystem import FileSystem, way_out

__all__ = ["Files"]

T = TypeVar("T")

LEFT_OVER_SECONDS = 6 * 3600.0
"""What is in tmp for longer was left by a writer that died."""
START_SECONDS = 20.0
"""How long faults are waited for before the work begins: the address may be wrong."""


class Files:
    """Files under a folder or any `pyarrow.fs` address (`s3://bucket/prefix`, `gs://...`). Names
    are relative to it, with slashes.

    Faults that may pass are waited for (see `magtkd.store.faults`). All methods raise
    `StorageLostError` where these last, or where an object store refuses.

    Raises:
        StorageError: the address is not one.
    """

    def __init__(self, address: str | Path) -> None:
        self._filesystem = FileSystem(address)
        self.address, self._root = self._filesystem.address, self._filesystem.root
        self._made: set[str] = set()

    @property
    def _is_local(self) -> bool:
        return self._filesystem.is_local

    def check_writable(self) -> None:
        """Write and remove a probe; a folder that does not exist yet is not made.

        Raises:
            StorageError: it cannot be written, or does not answer; the message gives the reason.
        """
        self._filesystem.seconds = START_SECONDS
        try:
            probe = f"{self._existing_folder()}/.probe-{uuid.uuid4().hex}"
            self._filesystem.write(probe, b"")
            self._filesystem.remove_file(probe)
        except OSError as error:
            raise StorageError(
                f"storage {self._filesystem.shown}: cannot be written: {reason_of(error)}; "
                "choose another --storage"
            ) from None
        except StorageLostError as error:
            raise StorageError(
                error.reason, f"{error.way_out}, or choose another --storage"
            ) from None
        finally:
            self._filesystem.seconds = None

    def _existing_folder(self) -> str:
        """The root, or the nearest folder above it that exists."""
        folder = self._root
        if self._is_local:
            while folder and self._filesystem.info(folder).type == pafs.FileType.NotFound:
                folder = folder.rpartition("/")[0]
        else:
            self._filesystem.make_folder(folder)
        return folder

    def local_path(self, name: str) -> Path | None:
        """The path of a file under the root, where the store is a folder that can hold locks."""
        return Path(self._root, name) if self._is_local else None

    def list_files(self, folder: str) -> list[str]:
        """Names of the files in a folder under the root, sorted; none where it does not exist."""
        found = self._filesystem.list(f"{self._root}/{folder}")
        return sorted(info.base_name for info in found if info.type == pafs.FileType.File)

    def list_folders(self, folder: str) -> list[str]:
        """Names of the folders in a folder under the root, sorted."""
        found = self._filesystem.list(f"{self._root}/{folder}")
        return sorted(info.base_name for info in found if info.type == pafs.FileType.Directory)

    def size_and_time(self, folder: str) -> tuple[int, float]:
        """Bytes of all files in a folder under the root, and when the latest was written, as
        seconds since 1970; 0 where nothing is known of it."""
        found = self._filesystem.list(f"{self._root}/{folder}", recursive=True)
        times = [info.mtime.timestamp() for info in found if info.mtime is not None]
        return sum(info.size or 0 for info in found), max(times, default=0.0)

    def read_file(self, name: str) -> bytes:
        """A file under the root.

        Raises:
            OSError: it is not there, or cannot be read.
        """
        return cast(bytes, self._filesystem.read(f"{self._root}/{name}").to_pybytes())

    def remove_file(self, name: str) -> None:
        """Remove a file under the root, if it is there and can be removed."""
        with contextlib.suppress(OSError, StorageLostError):
            self._filesystem.remove_file(f"{self._root}/{name}")

    def remove_folder(self, name: str) -> None:
        """Remove a folder under the root with all in it, if it is there and can be removed."""
        self._made.clear()
        with contextlib.suppress(OSError, StorageLostError):
            self._remove(f"{self._root}/{name}")

    def remove_left_overs(self) -> None:
        """Remove what writers that died left in tmp, once it is old enough to be no one's."""
        before = time.time() - LEFT_OVER_SECONDS
        for info in self._filesystem.list(f"{self._root}/tmp"):
            if info.mtime is not None and info.mtime.timestamp() < before:
                with contextlib.suppress(OSError, StorageLostError):
                    if info.type == pafs.FileType.Directory:
                        self._filesystem.remove_folder(info.path)
                    else:
                        self._filesystem.remove_file(info.path)

    def write_file(self, name: str, content: bytes) -> None:
        """Replace a file under the root in one step: a run's result, for example.

        Raises:
            StorageLostError: it could not be written; what was there is as it was.
        """
        final = f"{self._root}/{name}"
        temporary = f"{self._root}/tmp/{uuid.uuid4().hex}" if self._is_local else final
        try:
            for path in (temporary, final):
                self._make_folder(path.rpartition("/")[0])
            self._filesystem.write(temporary, content)
            if temporary != final:
                self._filesystem.move(temporary, final)
        except OSError as error:
            if temporary != final:
                with contextlib.suppress(OSError, StorageLostError):
                    self._filesystem.remove_file(temporary)
            if is_passing(error):  # for `as_one`
                raise
            raise self._cannot_write(final, error) from None

    def as_one(self, what: str, call: Callable[[], T]) -> T:
        """Do several things that are tried again together, from the first of them, where one meets
        a fault that may pass. No other thread may use these files meanwhile.

        Args:
            what: what is done, in words such as `write sweeps/mosi/ledger`.
            call: does it.
        """
        return self._filesystem.as_one(what, call)

    def _make_folder(self, folder: str) -> None:
        """Make a folder; on an object store, where it is only a name, once."""
        if self._is_local or folder not in self._made:
            self._filesystem.make_folder(folder)
            self._made.add(folder)

    def _cannot_write(self, path: str, error: OSError) -> StorageLostError:
        return StorageLostError(
            f"storage {self._filesystem.shown}: cannot write {path}: {reason_of(error)}",
            way_out(error, self._is_local),
        )

    def _remove(self, folder: str) -> None:
        if self._filesystem.info(folder).type == pafs.FileType.Directory:
            self._filesystem.remove_folder(folder)
