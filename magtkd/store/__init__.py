"""The store: artifacts, checkpoints of sessions, locks."""

from magtkd.store.artifact import Artifact, artifact_files, stage_key, table_bytes, to_json
from magtkd.store.checkpoints import Checkpointable, Checkpoints
from magtkd.store.faults import PATIENCE_SECONDS, patience_of, patiently, report_faults_to
from magtkd.store.files import Files
from magtkd.store.filesystem import copy_here
from magtkd.store.locks import is_locked, is_still, release_lock, take_lock
from magtkd.store.store import Store

__all__ = [
    "PATIENCE_SECONDS",
    "Artifact",
    "Checkpointable",
    "Checkpoints",
    "Files",
    "Store",
    "artifact_files",
    "copy_here",
    "is_locked",
    "is_still",
    "patience_of",
    "patiently",
    "release_lock",
    "report_faults_to",
    "stage_key",
    "table_bytes",
    "take_lock",
    "to_json",
]
