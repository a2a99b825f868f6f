"""The one place that reaches a storage: a `pyarrow.fs` file system that waits for faults to pass.

Each call does one thing as a whole, so that it can be done again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.fs as pafs

from magtkd.errors import StorageError, StorageLostError
from magtkd.store.faults import is_passing, patiently, reason_of

__all__ = ["FileSystem", "copy_here"]

T = TypeVar("T")

# What a file or folder is, and no fault of the storage.
_OF_THE_PATH = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError)
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}


class FileSystem:
    """The file system of an address, with the calls that the store needs.

    All of them raise `StorageLostError` for a fault that should have passed and did not, and where
    an object store refuses; `OSError` for what is wrong with a path, and all else that a local disk
    complains about.

    Args:
        address: a folder, or a `pyarrow.fs` address.

    Raises:
        StorageError: the address is not one.
    """

    def __init__(self, address: str | Path) -> None:
        self.address = str(address)
        self.shown = re.sub(r"//[^/@]*@", "//***@", self.address)
        """The address without credentials, for people."""
        self._found: pafs.FileSystem | None = None
        try:
            if "://" in self.address:
                self._found, root = pafs.FileSystem.from_uri(self.address)
            else:
                path = Path(self.address).expanduser().absolute()
                self.address = self.shown = str(path)
                self._found, root = pafs.LocalFileSystem(), path.as_posix()
        except (pa.ArrowInvalid, OSError) as error:
            if not isinstance(error, OSError) or not is_passing(error):
                raise StorageError(
                    f"storage {self.shown!r}: not a folder or a pyarrow.fs address: "
                    f"{reason_of(error)}; give a folder, or an address such as s3://bucket/prefix"
                ) from None
            # It asked the service for the bucket's region; the next call asks again.
            parts = urlsplit(self.address)
            root = f"{parts.netloc.rpartition('@')[2]}{parts.path}"
        self.root: str = root.rstrip("/")
        self.seconds: float | None = None
        """How long faults are waited for; None for the usual time."""
        self._is_inside = False
        self._place: tuple[int, int] | None = None
        """The device and the number of a folder's root, once something was made below it."""

    @property
    def _arrow(self) -> pafs.FileSystem:
        """Arrow's file system."""
        if self._found is None:
            self._found, _ = pafs.FileSystem.from_uri(self.address)
        return self._found

    @property
    def is_local(self) -> bool:
        """Whether it is a folder, which can rename and lock."""
        return isinstance(self._found, pafs.LocalFileSystem)

    def info(self, path: str) -> pafs.FileInfo:
        """What is at a path, if anything."""
        return self._read(path, lambda: self._arrow.get_file_info(path))

    def list(self, folder: str, *, recursive: bool = False) -> list[pafs.FileInfo]:
        """What is in a folder; nothing where it does not exist."""
        selector = pafs.FileSelector(folder, allow_not_found=True, recursive=recursive)
        found: list[pafs.FileInfo] = self._read(folder, lambda: self._arrow.get_file_info(selector))
        return found

    def read(self, path: str) -> pa.Buffer:
        """A file's content."""

        def read() -> pa.Buffer:
            with self._arrow.open_input_file(path) as file:
                return file.read_buffer()

        return self._read(path, read)

    def copy_here(self, path: str, target: Path) -> None:
        """Copy a file that is too large to be held in memory to one of this machine."""

        def copy() -> None:
            with self._arrow.open_input_stream(path) as source, target.open("wb") as copy_of:
                shutil.copyfileobj(source, copy_of, 1 << 24)

        self._read(path, copy)

    def write(self, path: str, content: bytes | pa.Buffer) -> None:
        """Write a file; its folder is there."""

        def write() -> None:
            with self._arrow.open_output_stream(path) as stream:
                stream.write(content)

        self._write(path, write)

    def copy_there(self, source: Path, path: str) -> None:
        """Copy a file of this machine that is too large to be held in memory."""

        def copy() -> None:
            with source.open("rb") as content, self._arrow.open_output_stream(path) as stream:
                shutil.copyfileobj(content, stream, 1 << 24)

        self._write(path, copy)

    def make_folder(self, folder: str) -> None:
        """Make a folder and those above it, where they are not there.

        Raises:
            StorageLostError: the root was there, and is gone or another one: a disk that was
                unmounted must not be written beside, in the folder on which it was mounted.
        """

        def make() -> None:
            if self.is_local and self._place not in {None, self._find_place()}:
                raise StorageLostError(
                    f"storage {self.shown}: the folder was removed, unmounted or replaced",
                    "put it back",
                )
            self._arrow.create_dir(folder, recursive=True)
            if self.is_local and self._place is None:
                self._place = self._find_place()

        self._write(folder, make)

    def _find_place(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self.root)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return found.st_dev, found.st_ino

    def move(self, source: str, target: str) -> None:
        """Rename."""
        self._write(target, lambda: self._arrow.move(source, target))

    def remove_file(self, path: str) -> None:
        """Remove a file."""
        self._write(path, lambda: self._arrow.delete_file(path), "remove")

    def remove_folder(self, folder: str) -> None:
        """Remove a folder with all in it."""
        self._write(folder, lambda: self._arrow.delete_dir(folder), "remove")

    # --- faults -------------------------------------------------------------------------------

    def as_one(self, what: str, call: Callable[[], T]) -> T:
        """Make several calls that are done again together, from the first of them: what one of them
        found out may not hold any more once another has waited. For one thread only."""
        self._is_inside = True
        try:
            return self._try(what, call, self.seconds)
        finally:
            self._is_inside = False

    def _try(self, what: str, call: Callable[[], T], seconds: float | None = None) -> T:
        return patiently(call, self.shown, what, seconds=seconds)

    def _read(self, path: str, call: Callable[[], T]) -> T:
        return self._call(f"read {path}", call)

    def _write(self, path: str, call: Callable[[], T], verb: str = "write") -> T:
        return self._call(f"{verb} {path}", call)

    def _call(self, what: str, call: Callable[[], T]) -> T:
        try:
            return call() if self._is_inside else self._try(what, call, self.seconds)
        except _OF_THE_PATH:
            raise
        except OSError as error:
            if self.is_local or is_passing(error):
                raise
            raise StorageLostError(
                f"storage {self.shown}: cannot {what}: {reason_of(error)}", way_out(error, False)
            ) from None


def way_out(error: OSError, is_local: bool) -> str:
    """What to do about a storage that refuses."""
    if is_local or error.errno in _NO_ROOM:
        return "make room, or choose another --storage"
    return "check that the bucket is there, and the rights of the credentials"


def copy_here(address: str, target: Path) -> None:
    """Copy the file at an address such as `s3://bucket/prefix/media.bin` to this machine.

    Raises:
        OSError: it is not there; nothing is left of the copy.
        StorageLostError: as for `FileSystem`.
    """
    try:
        files = FileSystem(address)
        files.copy_here(files.root, target)
    except BaseException:
        with contextlib.suppress(OSError):
            target.unlink(missing_ok=True)
        raise
