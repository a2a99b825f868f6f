"""The schema of an MLflow database: whether it is that of the MLflow that is installed.

MLflow migrates an older database as soon as it opens it, after which the older MLflow of whoever
else uses it cannot read it.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from magtkd.errors import TrackingError
from tune.redact import redact
from tune.tracking.address import is_database, sqlite_file

__all__ = ["Schema", "check_schema", "database_engine", "migrate", "read_schema"]

CONNECT_SECONDS = 10


@dataclass(frozen=True)
class Schema:
    """The revisions of a database and of the MLflow that is installed."""

    found: str | None
    """None where MLflow has no tables there yet."""
    installed: str
    is_older: bool
    """Else, where they differ, a later MLflow's, or none that this one knows."""

    @property
    def problem(self) -> tuple[str, str] | None:
        """What is wrong, and the way out; None where the database can be used as it is."""
        version = importlib.metadata.version("mlflow")
        has = f"its tables have MLflow's schema {self.found}"
        if self.found in {None, self.installed}:
            return None
        if self.is_older:
            return (
                f"{has}, which is older than {self.installed} of MLflow {version} here",
                "back it up and give --migrate-tracking to magtkd sweep or sync, after which an "
                "older MLflow cannot read it; or set MLFLOW_TRACKING_URI to another",
            )
        return (
            f"{has}, and MLflow {version} here knows those up to {self.installed}",
            "install the MLflow that made it, or set MLFLOW_TRACKING_URI to another",
        )


def database_engine(uri: str) -> Any:
    """An engine that connects soon or not at all, and keeps no connection."""
    import sqlalchemy

    limit = {"connect_timeout": CONNECT_SECONDS} if uri.startswith("postgresql") else {}
    return sqlalchemy.create_engine(uri, connect_args=limit, poolclass=sqlalchemy.pool.NullPool)


def read_schema(uri: str) -> Schema | None:
    """The schema of a database, where there is one; makes nothing.

    Raises:
        TrackingError: the address is not one.
        Exception: whatever the database raises when it is away.
    """
    sqlite = sqlite_file(uri)
    if not is_database(uri) or (sqlite is not None and not sqlite.exists()):
        return None
    from alembic.migration import MigrationContext

    engine = database_engine(uri)
    try:
        with engine.connect() as connection:
            found = MigrationContext.configure(connection).get_current_revision()
    finally:
        engine.dispose()
    installed, known = _revisions()
    return Schema(found, installed, is_older=found in known)


@functools.cache
def _revisions() -> tuple[str, set[str]]:
    """The last revision of the MLflow that is installed, and all that it knows."""
    from alembic.script import ScriptDirectory

    # For what these scripts import of MLflow when they are read.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    spec = importlib.util.find_spec("mlflow")
    assert spec is not None
    assert spec.origin is not None
    scripts = ScriptDirectory(str(Path(spec.origin).parent / "store" / "db_migrations"))
    return str(scripts.get_current_head()), {one.revision for one in scripts.walk_revisions()}


def check_schema(uri: str) -> Schema | None:
    """Refuse a database of another MLflow's schema; returns it, where there is a database.

    Raises:
        TrackingError: it has another; both are named.
        Exception: as for `read_schema`.
    """
    schema = read_schema(uri)
    if schema is not None and (problem := schema.problem) is not None:
        raise TrackingError(f"tracking at {redact(uri)}: {problem[0]}", problem[1])
    return schema


def migrate(uri: str) -> None:
    """Bring an older database to the schema of the MLflow that is installed, as `mlflow db upgrade`
    does.

    Raises:
        TrackingError: it has a schema that this MLflow does not know.
        Exception: as for `read_schema`.
    """
    schema = read_schema(uri)
    if schema is not None and schema.found != schema.installed and schema.is_older:
        from mlflow.db import commands

        commands.main(["upgrade", uri], standalone_mode=False)
    check_schema(uri)
