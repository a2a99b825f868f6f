"""Where everything of a sweep is.

    ROOT/mlflow.db                  tracking, unless MLFLOW_TRACKING_URI names a store
    ROOT/sweeps/NAME/
        ledger.jsonl                the truth
        lock                        held by the driver
        sweep.yaml                  the resolved sweep, for people
        live.json                   what runs now, as the driver wrote it last
        tracking-HASH.lock          held by whoever sends the ledger to one tracking store
        mlflow/                     MLflow's artifacts, where the tracking store is a database
        uploads/, tune/             scratch of tracking and of Ray Tune
        confirm/, confirm-2/, ...   confirmations, each with a ledger and the like of its own
    STORE/sessions/sweeps/ID/TRIAL/ checkpoints of the sweep's sessions

ROOT is the storage folder. Where the storage is a remote address, ROOT is `magtkd-results` in the
working directory, since an object store cannot append to a file. It is the working copy; the ledger
is durable in the store:

    STORE/sweeps/NAME/
        ledger/SERIES-FIRST-END.jsonl   its parts, by their bytes (`tune/ledger/remote.py`)
        owner.json                      the driver, with a heartbeat (`tune/ledger/owner.py`)
        sweep.yaml                      the resolved sweep, for people

The working copy also has `owner`, the id of the last driver that wrote there.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from magtkd.errors import SweepError, shorten
from tune.redact import redact

__all__ = [
    "SweepLayout",
    "is_remote",
    "session_name",
    "sessions_folder",
    "sqlite_uri",
    "storage_root",
    "tracking_uri",
]

DEFAULT_ROOT = "magtkd-results"


def is_remote(storage: str) -> bool:
    """Whether a storage is the address of an object store, and no folder."""
    return "://" in storage.removeprefix("file://")


def storage_root(storage: str) -> Path:
    """The folder on this machine with the ledgers and the default tracking database."""
    local = DEFAULT_ROOT if is_remote(storage) else storage.removeprefix("file://")
    return Path(local).expanduser().absolute()


def tracking_uri(root: Path) -> str:
    """`MLFLOW_TRACKING_URI` where it is set, else an SQLite file in the storage folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or sqlite_uri(root.resolve() / "mlflow.db")


def sqlite_uri(path: Path) -> str:
    """The address of an SQLite file, in which some characters are quoted."""
    from sqlalchemy import URL

    quoted = URL.create("sqlite", database=str(path)).render_as_string()
    if quoted == f"sqlite:///{path}":
        return quoted
    # By the driver's name too, as MLflow makes a folder for what follows `sqlite:///`, unquoted.
    return URL.create("sqlite+pysqlite", database=str(path)).render_as_string()


@dataclass(frozen=True)
class SweepLayout:
    """The places of one sweep: `root` is the storage folder, `name` the sweep's; `remote` is the
    address of an object store, where the storage is one."""

    root: Path
    name: str
    remote: str = ""
    part: str = ""
    """Where this is the layout of a confirmation: the name of its folder in the sweep's."""

    @classmethod
    def of(cls, storage: str, name: str) -> Self:
        """The layout of a sweep in a storage folder or address.

        Raises:
            SweepError: the name is none that a configuration can have, such as `../other`.
        """
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
            raise SweepError(
                f"sweep {shorten(name)!r}: not a name; use letters, digits, dot, underscore and "
                "hyphen"
            )
        return cls(storage_root(storage), name, storage if is_remote(storage) else "")

    @property
    def sweeps(self) -> Path:
        """The folder of all sweeps."""
        return self.root / "sweeps"

    @property
    def place(self) -> str:
        """Where all sweeps are, for people."""
        return redact(self.remote) or str(self.sweeps)

    @property
    def folder(self) -> Path:
        """The folder of this sweep, or of one of its confirmations."""
        return self.sweeps / self.name / self.part

    def confirmation(self, number: int) -> Self:
        """The layout of the sweep's confirmation of this number, from 1."""
        return replace(self, part="confirm" if number == 1 else f"confirm-{number}")

    @property
    def remote_folder(self) -> str:
        """The same folder in an object store, relative to the store."""
        return f"sweeps/{self.name}" + (f"/{self.part}" if self.part else "")

    @property
    def owner_file(self) -> Path:
        """The id of the last driver that wrote to an object store from here."""
        return self.folder / "owner"

    @property
    def ledger(self) -> Path:
        """The ledger's file."""
        return self.folder / "ledger.jsonl"

    @property
    def lock(self) -> Path:
        """The lock that a driver holds."""
        return self.folder / "lock"

    @property
    def sweep_file(self) -> Path:
        """The resolved sweep as YAML."""
        return self.folder / "sweep.yaml"

    @property
    def artifacts(self) -> Path:
        """The artifacts of all sweeps, where the storage is a folder; `magtkd.store` keeps them."""
        return self.root / "artifacts"

    @property
    def live_file(self) -> Path:
        """What runs now; removed when the driver ends."""
        return self.folder / "live.json"

    @property
    def mlflow_artifacts(self) -> Path:
        """Where MLflow keeps the artifacts of runs in a database; a confirmation's runs are in the
        sweep's experiment, which has one place for them."""
        return self.sweeps / self.name / "mlflow"

    @property
    def uploads(self) -> Path:
        """Files on their way to the tracking store."""
        return self.folder / "uploads"

    @property
    def scratch(self) -> Path:
        """Ray Tune's own folder, which nothing is read from."""
        return self.folder / "tune"

    @property
    def tracking_uri(self) -> str:
        """The address of the tracking store, unless another is given."""
        return tracking_uri(self.root)

    def tracking_lock(self, uri: str) -> Path:
        """The lock of whoever sends the ledger to the tracking store at an address."""
        digest = hashlib.sha256(uri.encode()).hexdigest()[:8]
        return self.folder / f"tracking-{digest}.lock"

    @property
    def neighbours(self) -> list[str]:
        """The names of the sweeps in this storage that were begun, sorted."""
        found = self.sweeps.glob(f"*/{self.ledger.name}")
        return sorted(path.parent.name for path in found if _has_line(path))


def _has_line(path: Path) -> bool:
    with path.open("rb") as file:
        return file.readline().endswith(b"\n")


def session_name(sweep_id: str, trial: int, candidate: str) -> str:
    """The name of a trial's checkpoints in the store (see `magtkd.store.checkpoints`)."""
    return f"sweeps/{sweep_id}/{trial}/{candidate}"


def sessions_folder(sweep_id: str, trial: int | None = None) -> str:
    """The folder in the store with the checkpoints of a sweep, or of one trial."""
    return f"sessions/sweeps/{sweep_id}" + ("" if trial is None else f"/{trial}")
