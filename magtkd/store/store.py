"""The store of artifacts: what each stage made, under its key, all of it or none.

    ROOT/artifacts/STAGE/KEY/
        features.arrow       features and logits of every utterance (Arrow IPC file)
        weights.safetensors  the weights of the chosen epoch
        media.bin            waveforms or frames of all clips, of the stages that decode them
        metrics.json         reports of all epochs and the chosen one's metrics
        config.json          the section and the keys that the key was made of
        manifest.json        path, size and SHA-256 of each file above

    ROOT/damaged/STAGE-KEY-*/    artifacts that did not match their checksums, set aside
    ROOT/sessions/               see `magtkd.store.checkpoints`
    ROOT/locks/                  who is training what, on this file system
    ROOT/tmp/                    what is being written

An object store cannot rename a folder. There each writer's files are in a folder of its own below
the key, and the manifest, written last, names that folder.

Files hold Arrow, safetensors and JSON only: nothing is ever unpickled.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.fs as pafs

from magtkd.errors import ArtifactError, StorageError, first_line

__all__ = ["Artifact", "Store", "artifact_files", "stage_key", "table_bytes", "to_json"]

MANIFEST = "manifest.json"
MEDIA = "media.bin"
_ENTRY = {"path", "size", "sha256"}
_FILES = {"features.arrow", "metrics.json", "config.json"}
_MORE_FILES = {"weights.safetensors", MEDIA}
LEFT_OVER_SECONDS = 6 * 3600.0
"""What is in tmp for longer was left by a writer that died."""


def to_json(value: Any) -> str:
    """Canonical JSON: sorted keys, no white space, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def stage_key(
    stage: str, *, version: int, section: Mapping[str, Any], seed: int, upstream: Mapping[str, str]
) -> str:
    """The key of a stage: 32 hexadecimal digits that change exactly when something upstream does.

    Args:
        stage: its name.
        version: the version of its code.
        section: its own section as plain values.
        seed: the configuration's seed.
        upstream: the keys of the stages it reads; for `data` the fingerprint of the table.
    """
    parts = [stage, version, section, seed, upstream]
    return hashlib.sha256(to_json(parts).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Artifact:
    """What a stage made: `table` with a row per utterance, `metrics` and `config` as plain values,
    `weights` as safetensors bytes (empty for the data stage). `media` is the file of the clips that
    `table` points into: gigabytes, which are never read as a whole."""

    stage: str
    key: str
    table: pa.Table
    metrics: dict[str, Any]
    config: dict[str, Any]
    weights: bytes = b""
    media: str = ""


def table_bytes(table: pa.Table) -> pa.Buffer:
    """A table as an Arrow IPC file, in one record batch so that columns read without a copy."""
    sink = pa.BufferOutputStream()
    table = table.combine_chunks()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def artifact_files(artifact: Artifact) -> dict[str, bytes | pa.Buffer]:
    """The files of an artifact, the manifest left out."""
    files: dict[str, bytes | pa.Buffer] = {
        "features.arrow": table_bytes(artifact.table),
        "metrics.json": to_json(artifact.metrics).encode(),
        "config.json": to_json(artifact.config).encode(),
    }
    if artifact.weights:
        files["weights.safetensors"] = artifact.weights
    return files


def _file_entry(path: str) -> dict[str, Any]:
    """A manifest's entry for a file that is too large to be held."""
    with Path(path).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"size": file.tell(), "sha256": digest}


def _read_table(content: pa.Buffer) -> pa.Table:
    return pa.ipc.open_file(content).read_all()


def _read_json(content: pa.Buffer) -> Any:
    return json.loads(content.to_pybytes())


def _parsed(
    folder: str, name: str, content: Mapping[str, pa.Buffer], parse: Callable[[pa.Buffer], Any]
) -> Any:
    """A file's content, parsed; its checksum may match and it may still be malformed."""
    try:
        return parse(content[name])
    except (pa.ArrowException, ValueError, RecursionError):
        raise _damaged(f"{folder}/{name}", "the file is damaged", folder) from None


def _damaged(path: str, why: str, folder: str) -> ArtifactError:
    return ArtifactError(f"{path}: {why}", f"delete {folder}")


def _is_inside(path: Any) -> bool:
    """Whether a manifest's path stays in the artifact's folder: a name, or one in a folder."""
    parts = path.split("/")
    return len(parts) <= 2 and not {"", ".", ".."} & set(parts)


def _reason(error: Exception) -> str:
    """The system's own words, where Arrow wraps them in a sentence about its file."""
    return first_line(error, 4096).rpartition("Detail: ")[2]


class Store:
    """Artifacts under a folder or any `pyarrow.fs` address (`s3://bucket/prefix`, `gs://...`).

    Raises:
        StorageError: the address is not one, or cannot be written.
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

    def folder(self, stage: str, key: str) -> str:
        """The path of an artifact on the store's file system."""
        return f"{self._root}/artifacts/{stage}/{key}"

    def exists(self, stage: str, key: str) -> bool:
        """Whether the whole artifact is there."""
        info = self._filesystem.get_file_info(f"{self.folder(stage, key)}/{MANIFEST}")
        return bool(info.is_file)

    def write(self, artifact: Artifact) -> Artifact:
        """Publish an artifact: readers see all of it or none. The first of several writers wins.

        Its media file is moved into the store; the artifact that is returned has its new address.

        Raises:
            StorageError: it could not be written; nothing of it is left under its key.
        """
        final = self.folder(artifact.stage, artifact.key)
        files = artifact_files(artifact)
        writer = uuid.uuid4().hex
        target = f"{self._root}/tmp/{writer}" if self._is_local else final
        prefix = "" if self._is_local else f"{writer}/"
        manifest = {
            name: {
                "path": f"{prefix}{name}",
                "size": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
            }
            for name, content in files.items()
        }
        try:
            self._filesystem.create_dir(f"{target}/{prefix}".rstrip("/"), recursive=True)
            for name, content in files.items():
                self._write_file(f"{target}/{prefix}{name}", content)
            if artifact.media:
                entry = _file_entry(artifact.media)
                manifest[MEDIA] = {"path": f"{prefix}{MEDIA}", **entry}
                self._move_in(artifact.media, f"{target}/{prefix}{MEDIA}")
            if self._is_local or not self.exists(artifact.stage, artifact.key):
                self._write_file(f"{target}/{MANIFEST}", to_json(manifest).encode())
            if target != final:
                self._publish(artifact, target)
        except OSError as error:
            if target != final:
                self._remove(target)
            raise self._cannot_write(final, error) from None
        if not artifact.media:
            return artifact
        return replace(artifact, media=self._media(final, self._manifest(final)[MEDIA]))

    def find(
        self, stage: str, key: str, *, weights: bool = True, warn: Callable[[str], None]
    ) -> Artifact | None:
        """The artifact if there is one. A damaged one is set aside and counts as none.

        Every file is checked, also the weights where they are not wanted.

        Args:
            stage: the stage's name.
            key: its key.
            weights: whether to return the weights as well.
            warn: called with one line: what was damaged, and where it was moved.
        """
        folder = self.folder(stage, key)
        try:
            if not self.exists(stage, key):
                # On a local disk a folder comes with its manifest, or not at all.
                if not self._is_local or not Path(folder).is_dir():
                    return None
                raise _damaged(f"{folder}/{MANIFEST}", "the file is missing", folder)
            artifact = self.read(stage, key)
        except ArtifactError as error:
            place = self.set_aside(stage, key)
            warn(f"{error.reason}; set aside as {place}, and trained again")
            return None
        return artifact if weights else replace(artifact, weights=b"")

    def set_aside(self, stage: str, key: str) -> str:
        """Take an artifact away from its key; returns where its files are now."""
        folder = self.folder(stage, key)
        place = f"{self._root}/damaged/{stage}-{key}-{uuid.uuid4().hex[:8]}"
        try:
            if self._is_local:
                self._filesystem.create_dir(f"{self._root}/damaged", recursive=True)
                self._filesystem.move(folder, place)
            else:  # without its manifest it is none, and the next writer has a folder of its own
                place = folder
                self._filesystem.delete_file(f"{folder}/{MANIFEST}")
        except FileNotFoundError:
            pass  # another process was first
        except OSError as error:
            raise self._cannot_write(place, error) from None
        return place

    def read(self, stage: str, key: str, *, weights: bool = True) -> Artifact:
        """Read an artifact and check it against its manifest: its media by size only, since each
        clip is checked when it is read.

        Args:
            stage: the stage's name.
            key: its key.
            weights: whether to read the weights as well.

        Raises:
            ArtifactError: it is missing, or a file does not match its checksum.
        """
        folder = self.folder(stage, key)
        manifest = self._manifest(folder)
        without = {MEDIA} if weights else {MEDIA, "weights.safetensors"}
        wanted = [name for name in manifest if name not in without]
        content = {name: self._checked(folder, manifest[name]) for name in wanted}
        weights_content = content.get("weights.safetensors")
        return Artifact(
            stage=stage,
            key=key,
            table=_parsed(folder, "features.arrow", content, _read_table),
            metrics=_parsed(folder, "metrics.json", content, _read_json),
            config=_parsed(folder, "config.json", content, _read_json),
            weights=b"" if weights_content is None else weights_content.to_pybytes(),
            media=self._media(folder, manifest[MEDIA]) if MEDIA in manifest else "",
        )

    def read_metrics(self, stage: str, key: str) -> dict[str, Any]:
        """The metrics of an artifact alone.

        Raises:
            ArtifactError: it is missing, or its metrics do not match their checksum.
        """
        folder = self.folder(stage, key)
        content = self._checked(folder, self._manifest(folder)["metrics.json"])
        metrics: dict[str, Any] = _parsed(
            folder, "metrics.json", {"metrics.json": content}, _read_json
        )
        return metrics

    # --- other files under the root ----------------------------------------------------------

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

    def _manifest(self, folder: str) -> dict[str, dict[str, Any]]:
        path = f"{folder}/{MANIFEST}"
        try:
            manifest = json.loads(self._read_file(path).to_pybytes())
            whole = _FILES <= set(manifest) <= _FILES | _MORE_FILES and all(
                set(entry) == _ENTRY and _is_inside(entry["path"]) for entry in manifest.values()
            )
        except OSError:
            raise ArtifactError(f"{folder}: there is no such artifact", "train the stage") from None
        except (ValueError, TypeError, AttributeError):
            whole = False
        if not whole:
            raise _damaged(path, "the file is damaged", folder)
        return cast(dict[str, dict[str, Any]], manifest)

    def _checked(self, folder: str, entry: Mapping[str, Any]) -> pa.Buffer:
        path = f"{folder}/{entry['path']}"
        try:
            content = self._read_file(path)
        except OSError:
            raise _damaged(path, "the file is missing", folder) from None
        found = hashlib.sha256(content).hexdigest()
        if found != entry["sha256"]:
            why = (
                f"the file is damaged: {content.size} bytes with SHA-256 {found[:12]}, "
                f"not {entry['size']} with {entry['sha256'][:12]}"
            )
            raise _damaged(path, why, folder)
        return content

    def _media(self, folder: str, entry: Mapping[str, Any]) -> str:
        """The address of a media file that has the size it should have."""
        path = f"{folder}/{entry['path']}"
        found = self._filesystem.get_file_info(path).size
        if found != entry["size"]:
            why = f"the file is damaged: {found} bytes, not {entry['size']}"
            raise _damaged(path, why, folder)
        if self._is_local:
            return path
        parts = urlsplit(self.address)
        below = path.removeprefix(self._root)
        return parts._replace(path=f"{parts.path.rstrip('/')}{below}").geturl()

    def _move_in(self, source: str, target: str) -> None:
        if self._is_local:
            shutil.move(source, target)
            return
        with (
            Path(source).open("rb") as content,
            self._filesystem.open_output_stream(target) as out,
        ):
            shutil.copyfileobj(content, out, 1 << 24)
        Path(source).unlink(missing_ok=True)

    def _publish(self, artifact: Artifact, temporary: str) -> None:
        final = self.folder(artifact.stage, artifact.key)
        self._filesystem.create_dir(final.rpartition("/")[0], recursive=True)
        try:
            self._filesystem.move(temporary, final)
            return
        except OSError:
            if self._filesystem.get_file_info(final).type != pafs.FileType.Directory:
                raise
        if self.exists(artifact.stage, artifact.key):
            self._remove(temporary)  # another writer was first, with the same content
        else:
            self.set_aside(artifact.stage, artifact.key)  # it has lost its manifest
            self._filesystem.move(temporary, final)

    def _remove(self, folder: str) -> None:
        if self._filesystem.get_file_info(folder).type == pafs.FileType.Directory:
            self._filesystem.delete_dir(folder)
