"""The store: artifacts, checkpoints of sessions, locks."""

from magtkd.store.artifact import Artifact, artifact_files, stage_key, table_bytes, to_json
from magtkd.store.checkpoints import Checkpointable, Checkpoints
from magtkd.store.locks import is_locked, release_lock, take_lock
from magtkd.store.store import Store

__all__ = [
    "Artifact",
    "Checkpointable",
    "Checkpoints",
    "Store",
    "artifact_files",
    "is_locked",
    "release_lock",
    "stage_key",
    "table_bytes",
    "take_lock",
    "to_json",
]
