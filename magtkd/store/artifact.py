"""An artifact as a value, and its files: what a stage made, and the manifest of it.

Files hold Arrow, safetensors and JSON only: nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, cast

import pyarrow as pa

from magtkd.errors import ArtifactError

__all__ = [
    "MANIFEST",
    "MEDIA",
    "WEIGHTS",
    "Artifact",
    "Entry",
    "Manifest",
    "artifact_files",
    "damaged",
    "entry_of",
    "entry_of_file",
    "parse_file",
    "parse_manifest",
    "stage_key",
    "table_bytes",
    "to_json",
]

MANIFEST = "manifest.json"
MEDIA = "media.bin"
WEIGHTS = "weights.safetensors"
_FILES = {"features.arrow", "metrics.json", "config.json"}
_MORE_FILES = {WEIGHTS, MEDIA}


class Entry(TypedDict):
    """A file of an artifact: its path in the artifact's folder, its bytes, and its checksum."""

    path: str
    size: int
    sha256: str


Manifest = dict[str, Entry]
"""The files of an artifact by name."""


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
        files[WEIGHTS] = artifact.weights
    return files


def entry_of(path: str, content: bytes | pa.Buffer) -> Entry:
    """The manifest's entry of a file."""
    return {"path": path, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def entry_of_file(path: str, source: str) -> Entry:
    """The manifest's entry of a local file `source` that is too large to be held in memory."""
    with Path(source).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"path": path, "size": file.tell(), "sha256": digest}


def parse_manifest(content: bytes) -> Manifest | None:
    """The manifest in a file; None where it is malformed or names files outside the folder."""
    try:
        manifest = json.loads(content)
        is_whole = _FILES <= set(manifest) <= _FILES | _MORE_FILES and all(
            set(entry) == Entry.__required_keys__ and _is_inside(entry["path"])
            for entry in manifest.values()
        )
    except (ValueError, TypeError, AttributeError):
        return None
    return cast(Manifest, manifest) if is_whole else None


def parse_file(folder: str, name: str, content: pa.Buffer) -> Any:
    """A table or plain values, by the file's name. Its checksum may match and it may still be
    malformed.

    Raises:
        ArtifactError: it is malformed.
    """
    try:
        if name == "features.arrow":
            return pa.ipc.open_file(content).read_all()
        return json.loads(content.to_pybytes())
    except (pa.ArrowException, ValueError, RecursionError):
        raise damaged(f"{folder}/{name}", "the file is damaged", folder) from None


def damaged(path: str, why: str, folder: str) -> ArtifactError:
    """The error of a file in the folder of an artifact."""
    return ArtifactError(f"{path}: {why}", f"delete {folder}")


def _is_inside(path: Any) -> bool:
    """Whether a manifest's path stays in the artifact's folder: a name, or one in a folder."""
    parts = path.split("/")
    return len(parts) <= 2 and not {"", ".", ".."} & set(parts)
