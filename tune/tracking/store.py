"""Opening an MLflow store: quietly, at once or not at all, and without harm to one that is new."""

from __future__ import annotations

import logging
import os
import re
import shutil
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

from magtkd.store import take_lock

__all__ = ["NUM_UPLOADS", "import_mlflow", "is_database", "num_writers", "open_client", "read_tag"]

CONNECT_SECONDS = 10
# MLflow has 15 connections to its database in each process, and takes two for a batch: 15 batches
# at once could each hold one and wait for the other.
NUM_WRITERS = 8
NUM_UPLOADS = 16
NOISY_MODULES = r"(mlflow|sqlalchemy|alembic)(\.|$)"
NOISY_LOGGERS = ("mlflow", "sqlalchemy", "alembic", "urllib3", "psycopg")
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_HTTP_POOL_MAXSIZE": str(NUM_UPLOADS),
    "GIT_PYTHON_REFRESH": "quiet",
}


def import_mlflow() -> Any:
    """MLflow, quiet and without retries of its own; takes seconds, so only a thread does it."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    # It would print the address, with its password.
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    warnings.filterwarnings("ignore", module=NOISY_MODULES)
    import mlflow

    for name in NOISY_LOGGERS:
        logger = logging.getLogger(name)
        if logger.level < logging.CRITICAL:
            logger.setLevel(logging.CRITICAL)
    return mlflow


def is_database(uri: str) -> bool:
    """Whether an address is that of a database, and not of a server."""
    return re.match(r"(sqlite|postgresql|mysql|mssql)(\+\w+)?:", uri) is not None


def num_writers(uri: str) -> int:
    """How many may write to the store at once: most of a request is waiting for the answer."""
    return NUM_WRITERS if uri.startswith(("http", "postgresql", "mysql")) else 1


def open_client(uri: str) -> Any:
    """A client of the store, whose tables are made where there are none.

    Raises:
        Exception: whatever MLflow or the database raises when the store is away.
    """
    mlflow = import_mlflow()
    if (sqlite := _sqlite_path(uri)) is not None:
        _create_sqlite(mlflow, sqlite)
    elif uri.startswith("postgresql"):
        # MLflow itself would try for a minute and a half.
        engine = _engine(uri)
        with engine.connect():
            pass
        engine.dispose()
    return mlflow.MlflowClient(tracking_uri=uri)


def read_tag(uri: str, experiment: str, of: tuple[str, str], name: str) -> str | None:
    """A tag of the run that has both that tag and the tag `of` (name, value); makes nothing.

    Raises:
        Exception: as for `open_client`.
    """
    if is_database(uri):
        return _read_database_tag(uri, of, name)
    client = import_mlflow().MlflowClient(tracking_uri=uri)
    found = client.get_experiment_by_name(experiment)
    if found is None:
        return None
    query = f"tags.`{of[0]}` = '{of[1]}' AND tags.`{name}` != ''"
    runs = client.search_runs([found.experiment_id], query, max_results=1)
    return str(runs[0].data.tags[name]) if runs else None


def _read_database_tag(uri: str, of: tuple[str, str], name: str) -> str | None:
    # Not through MLflow, which makes its tables in a database that has none.
    import sqlalchemy

    sqlite = _sqlite_path(uri)
    if sqlite is not None and not sqlite.exists():
        return None
    engine = _engine(uri)
    try:
        with engine.connect() as connection:
            if not sqlalchemy.inspect(connection).has_table("tags"):
                return None
            query = sqlalchemy.text(
                "SELECT wanted.value FROM tags wanted "
                "JOIN tags held ON held.run_uuid = wanted.run_uuid "
                "JOIN runs ON runs.run_uuid = wanted.run_uuid WHERE wanted.key = :name "
                "AND held.key = :of AND held.value = :value AND runs.lifecycle_stage = 'active'"
            )
            row = connection.execute(query, {"name": name, "of": of[0], "value": of[1]}).first()
            return None if row is None else str(row[0])
    finally:
        engine.dispose()


def _engine(uri: str) -> Any:
    import sqlalchemy

    limit = {"connect_timeout": CONNECT_SECONDS} if uri.startswith("postgresql") else {}
    return sqlalchemy.create_engine(uri, connect_args=limit, poolclass=sqlalchemy.pool.NullPool)


# --- SQLite -----------------------------------------------------------------------------------


def _sqlite_path(uri: str) -> Path | None:
    """The file of an SQLite address; None for other addresses."""
    path = uri.removeprefix("sqlite:///").partition("?")[0]
    return Path(path) if path != uri and path and path != ":memory:" else None


def _create_sqlite(mlflow: Any, path: Path) -> None:
    """Make a new SQLite store that other processes see complete or not at all.

    MLflow migrates a new store for seconds; two that do so at once, or one that is killed
    meanwhile, leave it unusable.
    """
    while not path.exists():
        lock = take_lock(path.with_name(f".{path.name}.lock"))
        if lock is None:
            time.sleep(0.1)
            continue
        try:
            if not path.exists():
                _migrate_aside(mlflow, path)
        finally:
            os.close(lock)


def _migrate_aside(mlflow: Any, path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".mlflow-") as folder:
        mlflow.MlflowClient(f"sqlite:///{folder}/new.db").search_experiments(max_results=1)
        # The client keeps its file open: a copy, so that no one shares it.
        shutil.copyfile(f"{folder}/new.db", f"{folder}/done.db")
        os.replace(f"{folder}/done.db", path)
