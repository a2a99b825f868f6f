"""The store of artifacts: what each stage made, under its key, all of it or none.

    ROOT/artifacts/STAGE/KEY/
        features.arrow       features and logits of every utterance (Arrow IPC file)
        weights.safetensors  the weights of the chosen epoch
        media.bin            waveforms or frames of all clips, of the stages that decode them
        metrics.json         reports of all epochs and the chosen one's metrics
        config.json          the section and the keys that the key was made of
        manifest.json        path, size and SHA-256 of each file above

    ROOT/damaged/STAGE-KEY-*/    artifacts that did not match their checksums
    ROOT/sessions/               see `magtkd.store.checkpoints`
    ROOT/locks/                  who is training what, on this file system
    ROOT/tmp/                    what is being written

An object store cannot rename a folder. There each writer's files are in a folder of its own below
the key, and the manifest, written last, names that folder.

Files hold Arrow, safetensors and JSON only: nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import shutil
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.fs as pafs

from magtkd.errors import ArtifactError
from magtkd.store.artifact import (
    MANIFEST,
    MEDIA,
    WEIGHTS,
    Artifact,
    Entry,
    Manifest,
    artifact_files,
    damaged,
    entry_of,
    entry_of_file,
    parse_file,
    parse_manifest,
    to_json,
)
from magtkd.store.files import Files

__all__ = ["Store"]


class Store(Files):
    """Artifacts under a folder or any `pyarrow.fs` address (`s3://bucket/prefix`, `gs://...`).

    Raises:
        StorageError: the address is not one.
    """

    def folder(self, stage: str, key: str) -> str:
        """The path of an artifact on the store's file system."""
        return f"{self._root}/artifacts/{stage}/{key}"

    def exists(self, stage: str, key: str) -> bool:
        """Whether the whole artifact is there."""
        info = self._filesystem.info(f"{self.folder(stage, key)}/{MANIFEST}")
        return bool(info.is_file)

    def write(self, artifact: Artifact) -> Artifact:
        """Publish an artifact: readers see all of it or none. The first of several writers wins.

        Its media file is moved into the store; the artifact that is returned has its new address.

        Raises:
            StorageLostError: it could not be written; nothing of it is left under its key.
        """
        final = self.folder(artifact.stage, artifact.key)
        files = artifact_files(artifact)
        writer = uuid.uuid4().hex
        target = f"{self._root}/tmp/{writer}" if self._is_local else final
        prefix = "" if self._is_local else f"{writer}/"
        manifest = {name: entry_of(f"{prefix}{name}", content) for name, content in files.items()}
        try:
            self._filesystem.make_folder(f"{target}/{prefix}".rstrip("/"))
            for name, content in files.items():
                self._filesystem.write(f"{target}/{prefix}{name}", content)
            if artifact.media:
                manifest[MEDIA] = entry_of_file(f"{prefix}{MEDIA}", artifact.media)
                self._move_in(artifact.media, f"{target}/{prefix}{MEDIA}")
            if self._is_local or not self.exists(artifact.stage, artifact.key):
                self._filesystem.write(f"{target}/{MANIFEST}", to_json(manifest).encode())
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
        """The artifact if there is one. A damaged one is quarantined and counts as none.

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
                raise damaged(f"{folder}/{MANIFEST}", "the file is missing", folder)
            artifact = self.read(stage, key)
        except ArtifactError as error:
            place = self.quarantine(stage, key)
            warn(f"{error.reason}; quarantined as {place}; the stage is retrained")
            return None
        return artifact if weights else replace(artifact, weights=b"")

    def quarantine(self, stage: str, key: str) -> str:
        """Take an artifact away from its key; returns where its files are now."""
        folder = self.folder(stage, key)
        place = f"{self._root}/damaged/{stage}-{key}-{uuid.uuid4().hex[:8]}"
        try:
            if self._is_local:
                self._filesystem.make_folder(f"{self._root}/damaged")
                self._filesystem.move(folder, place)
            else:  # without its manifest it is none, and the next writer has a folder of its own
                place = folder
                self._filesystem.remove_file(f"{folder}/{MANIFEST}")
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
        without = {MEDIA} if weights else {MEDIA, WEIGHTS}
        wanted = [name for name in manifest if name not in without]
        content = {name: self._checked(folder, manifest[name]) for name in wanted}
        parsed = {
            name: parse_file(folder, name, content[name])
            for name in ("features.arrow", "metrics.json", "config.json")
        }
        return Artifact(
            stage=stage,
            key=key,
            table=parsed["features.arrow"],
            metrics=parsed["metrics.json"],
            config=parsed["config.json"],
            weights=content[WEIGHTS].to_pybytes() if WEIGHTS in content else b"",
            media=self._media(folder, manifest[MEDIA]) if MEDIA in manifest else "",
        )

    def read_metrics(self, stage: str, key: str) -> dict[str, Any]:
        """The metrics of an artifact alone.

        Raises:
            ArtifactError: it is missing, or its metrics do not match their checksum.
        """
        folder = self.folder(stage, key)
        content = self._checked(folder, self._manifest(folder)["metrics.json"])
        metrics: dict[str, Any] = parse_file(folder, "metrics.json", content)
        return metrics

    def _manifest(self, folder: str) -> Manifest:
        path = f"{folder}/{MANIFEST}"
        try:
            content = self._filesystem.read(path).to_pybytes()
        except OSError:
            raise ArtifactError(f"{folder}: there is no such artifact", "train the stage") from None
        manifest = parse_manifest(content)
        if manifest is None:
            raise damaged(path, "the file is damaged", folder)
        return manifest

    def _checked(self, folder: str, entry: Entry) -> pa.Buffer:
        path = f"{folder}/{entry['path']}"
        try:
            content = self._filesystem.read(path)
        except OSError:
            raise damaged(path, "the file is missing", folder) from None
        found = hashlib.sha256(content).hexdigest()
        if found != entry["sha256"]:
            why = (
                f"the file is damaged: {content.size} bytes with SHA-256 {found[:12]}, "
                f"not {entry['size']} with {entry['sha256'][:12]}"
            )
            raise damaged(path, why, folder)
        return content

    def _media(self, folder: str, entry: Entry) -> str:
        """The address of a media file that has the size it should have."""
        path = f"{folder}/{entry['path']}"
        found = self._filesystem.info(path).size
        if found != entry["size"]:
            why = f"the file is damaged: {found} bytes, not {entry['size']}"
            raise damaged(path, why, folder)
        if self._is_local:
            return path
        parts = urlsplit(self.address)
        below = path.removeprefix(self._root)
        return parts._replace(path=f"{parts.path.rstrip('/')}{below}").geturl()

    def _move_in(self, source: str, target: str) -> None:
        if self._is_local:
            shutil.move(source, target)
            return
        self._filesystem.copy_there(Path(source), target)
        Path(source).unlink(missing_ok=True)

    def _publish(self, artifact: Artifact, temporary: str) -> None:
        final = self.folder(artifact.stage, artifact.key)
        self._filesystem.make_folder(final.rpartition("/")[0])
        try:
            self._filesystem.move(temporary, final)
            return
        except OSError:
            if self._filesystem.info(final).type != pafs.FileType.Directory:
                raise
        if self.exists(artifact.stage, artifact.key):
            self._remove(temporary)  # another writer was first, with the same content
        else:
            self.quarantine(artifact.stage, artifact.key)  # it has lost its manifest
            self._filesystem.move(temporary, final)
