"""Clips in one file, and a table of where each of them is.

The file is read through a memory map: what a trial does not look at is never loaded, and processes
on one machine share what they do look at.
"""

from __future__ import annotations

import os
import tempfile
import uuid
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from magtkd.errors import ArtifactError
from magtkd.store import copy_here

__all__ = ["ClipWriter", "Clips"]

METADATA_KEY = b"magtkd.media"
DTYPES: dict[str, np.dtype[Any]] = {"waveform": np.dtype("<i2"), "frames": np.dtype("u1")}


class ClipWriter:
    """Appends clips to a file, and makes the table of where they are.

    Args:
        path: the file to write.
        kind: `waveform` (int16 samples) or `frames` (uint8 pixels).
    """

    def __init__(self, path: Path, kind: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._kind, self._dtype = kind, DTYPES[kind]
        self._file: BinaryIO = path.open("wb")
        self._rows: list[tuple[int, int, int]] = []

    def __enter__(self) -> ClipWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def append(self, clip: npt.NDArray[Any]) -> None:
        """The next utterance's clip."""
        content = np.ascontiguousarray(clip, self._dtype).data.cast("B")
        self._rows.append((self._file.tell(), content.nbytes, zlib.crc32(content)))
        self._file.write(content)

    def table(self, identity: pa.Table, shape: tuple[int, ...]) -> pa.Table:
        """The utterances' identity with `offset`, `length` (bytes) and `checksum` of each clip.

        Args:
            identity: a row for each clip, in order.
            shape: of what repeats in a clip: empty for samples, [frames, height, width, 3].
        """
        columns = zip(*self._rows, strict=True)
        for name, values in zip(("offset", "length", "checksum"), columns, strict=True):
            identity = identity.append_column(name, pa.array(values, pa.int64()))
        described = f"{self._kind} {' '.join(map(str, shape))}".strip()
        return identity.replace_schema_metadata({METADATA_KEY: described.encode()})


class Clips:
    """The clips of a media artifact, by row of the data stage's table.

    Args:
        table: the artifact's table.
        address: the file of its clips.
        data: the data stage's table.

    Raises:
        ArtifactError: the clips cannot be read.
    """

    def __init__(self, table: pa.Table, address: str, data: pa.Table) -> None:
        kind, *shape = cast(bytes, table.schema.metadata[METADATA_KEY]).decode().split()
        self.shape = tuple(map(int, shape))
        self._dtype, self._address = DTYPES[kind], address
        rows = _rows_of(table, data)
        self._offset, self._length, self._checksum = (
            table.column(name).to_numpy()[rows] for name in ("offset", "length", "checksum")
        )
        self._content: Any = None

    def __len__(self) -> int:
        return len(self._offset)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """[num_utterances] samples or pixel values of each clip."""
        return cast(npt.NDArray[np.int64], self._length // self._dtype.itemsize)

    def __getitem__(self, row: int) -> npt.NDArray[Any]:
        """The clip of a row, not to be written to: [samples] int16, or [frames, height, width, 3]
        uint8.

        Raises:
            ArtifactError: it is not what was written.
        """
        if self._content is None:
            self._content = np.memmap(_local(self._address), np.uint8, mode="r")
        start, size = int(self._offset[row]), int(self._length[row])
        content = self._content[start : start + size]
        if zlib.crc32(content) != self._checksum[row]:
            raise ArtifactError(
                f"{self._address}: the file is damaged",
                f"delete {os.path.dirname(self._address)}",
            )
        clip: npt.NDArray[Any] = content.view(self._dtype)
        return clip.reshape(self.shape) if self.shape else clip


def _rows_of(table: pa.Table, data: pa.Table) -> npt.NDArray[np.int64]:
    def names(one: pa.Table) -> list[tuple[str, int]]:
        columns = (one.column(name).to_pylist() for name in ("dialogue_id", "utterance_id"))
        return list(zip(*columns, strict=True))

    where: Mapping[tuple[str, int], int] = {name: row for row, name in enumerate(names(table))}
    return np.array([where[name] for name in names(data)], np.int64)


def _local(address: str) -> Path:
    """The file itself, or a copy on this machine that its processes share."""
    if "://" not in address:
        return _there(Path(address), address)
    folder = Path(tempfile.gettempdir()) / f"magtkd-media-{os.getuid()}"
    copy = folder / "-".join(urlsplit(address).path.split("/")[-3:])
    if not copy.is_file():
        folder.mkdir(mode=0o700, exist_ok=True)
        partial = copy.with_name(f".{copy.name}.{uuid.uuid4().hex}")
        try:
            copy_here(address, partial)
            partial.replace(copy)
        except OSError:
            raise _unreadable(address) from None
        finally:
            partial.unlink(missing_ok=True)
    return _there(copy, address)


def _there(path: Path, address: str) -> Path:
    if not path.is_file():
        raise _unreadable(address)
    return path


def _unreadable(address: str) -> ArtifactError:
    return ArtifactError(
        f"{address}: the clips cannot be read",
        "they must be reachable from every node that trains on them",
    )
