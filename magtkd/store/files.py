"""Files and folders below one root, on this machine or on an object store."""

from __future__ import annotations

import contextlib
import time
import uuid
from pathlib import Path
from typing import cast

import pyarrow as pa
import pyarrow.fs as pafs

from magtkd.errors import StorageError, first_line

__all__ = ["Files"]

LEFT_OVER_SECONDS = 6 * 3600.0
"""What is in tmp for longer was left by a writer that died."""


class Files:
    """Files under a folder or any `pyarrow.fs` address (`s3://bucket/prefix`, `gs://...`). Names
    are relative to it, with slashes.

    Raises:
        StorageError: the address is not one.
    """

    def __init__(self, address: str | Path) -> None:
        self.address = str(address)
        try:
            if "://" in self.address:
                self._filesystem, root = pafs.FileSystem.from_uri(self.address)
            else:
                path = Path(self.address).expanduser().absolute()
                self.address = str(path)
                self._filesystem, root = pafs.LocalFileSystem(), path.as_posix()
        except (pa.ArrowInvalid, OSError) as error:
            raise StorageError(
                f"storage {self.address!r}: not a folder or a pyarrow.fs address: "
                f"{_reason(error)}; give a folder, or an address such as s3://bucket/prefix"
            ) from None
        self._root: str = root.rstrip("/")

    @property
    def _is_local(self) -> bool:
        return isinstance(self._filesystem, pafs.LocalFileSystem)

    def check_writable(self) -> None:
        """Write and remove a probe; a folder that does not exist yet is not made.

        Raises:
            StorageError: it cannot be written; the message gives the reason.
        """
        try:
            probe = f"{self._existing_folder()}/.probe-{uuid.uuid4().hex}"
            self._write_file(probe, b"")
            self._filesystem.delete_file(probe)
        except OSError as error:
            raise StorageError(
                f"storage {self.address}: cannot be written: {_reason(error)}; "
                "choose another --storage"
            ) from None

    def _existing_folder(self) -> str:
        """The root, or the nearest folder above it that exists."""
        folder = self._root
        if self._is_local:
            while folder and self._filesystem.get_file_info(folder).type == pafs.FileType.NotFound:
                folder = folder.rpartition("/")[0]
        else:
            self._filesystem.create_dir(folder, recursive=True)
        return folder

    def local_path(self, name: str) -> Path | None:
        """The path of a file under the root, where the store is a folder that can hold locks."""
        return Path(self._root, name) if self._is_local else None

    def list_files(self, folder: str) -> list[str]:
        """Names of the files in a folder under the root, sorted; none where it does not exist."""
        selector = pafs.FileSelector(f"{self._root}/{folder}", allow_not_found=True)
        found = self._filesystem.get_file_info(selector)
        return sorted(info.base_name for info in found if info.type == pafs.FileType.File)

    def list_folders(self, folder: str) -> list[str]:
        """Names of the folders in a folder under the root, sorted."""
        selector = pafs.FileSelector(f"{self._root}/{folder}", allow_not_found=True)
        found = self._filesystem.get_file_info(selector)
        return sorted(info.base_name for info in found if info.type == pafs.FileType.Directory)

    def read_file(self, name: str) -> bytes:
        """A file under the root.

        Raises:
            OSError: it is not there, or cannot be read.
        """
        return cast(bytes, self._read_file(f"{self._root}/{name}").to_pybytes())

    def remove_file(self, name: str) -> None:
        """Remove a file under the root, if it is there and can be removed."""
        with contextlib.suppress(OSError):
            self._filesystem.delete_file(f"{self._root}/{name}")

    def remove_folder(self, name: str) -> None:
        """Remove a folder under the root with all in it, if it is there and can be removed."""
        with contextlib.suppress(OSError):
            self._remove(f"{self._root}/{name}")

    def remove_left_overs(self) -> None:
        """Remove what writers that died left in tmp, once it is old enough to be no one's."""
        before = time.time() - LEFT_OVER_SECONDS
        selector = pafs.FileSelector(f"{self._root}/tmp", allow_not_found=True)
        for info in self._filesystem.get_file_info(selector):
            if info.mtime is not None and info.mtime.timestamp() < before:
                with contextlib.suppress(OSError):
                    if info.type == pafs.FileType.Directory:
                        self._filesystem.delete_dir(info.path)
                    else:
                        self._filesystem.delete_file(info.path)

    def write_file(self, name: str, content: bytes) -> None:
        """Replace a file under the root in one step: a run's result, for example.

        Raises:
            StorageError: it could not be written; what was there is as it was.
        """
        final = f"{self._root}/{name}"
        temporary = f"{self._root}/tmp/{uuid.uuid4().hex}" if self._is_local else final
        try:
            for path in (temporary, final):
                self._filesystem.create_dir(path.rpartition("/")[0], recursive=True)
            self._write_file(temporary, content)
            if temporary != final:
                self._filesystem.move(temporary, final)
        except OSError as error:
            if temporary != final:
                with contextlib.suppress(OSError):
                    self._filesystem.delete_file(temporary)
            raise self._cannot_write(final, error) from None

    def _write_file(self, path: str, content: bytes | pa.Buffer) -> None:
        with self._filesystem.open_output_stream(path) as stream:
            stream.write(content)

    def _read_file(self, path: str) -> pa.Buffer:
        with self._filesystem.open_input_file(path) as file:
            return file.read_buffer()

    def _cannot_write(self, path: str, error: OSError) -> StorageError:
        return StorageError(
            f"storage {self.address}: cannot write {path}: {_reason(error)}; "
            "make room, or choose another --storage"
        )

    def _remove(self, folder: str) -> None:
        if self._filesystem.get_file_info(folder).type == pafs.FileType.Directory:
            self._filesystem.delete_dir(folder)


def _reason(error: Exception) -> str:
    """The reason that the system gives, where Arrow wraps it in a sentence about its file."""
    return first_line(error, 4096).rpartition("Detail: ")[2]
