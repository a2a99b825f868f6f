"""Opening an MLflow store: quietly, at once or not at all, and without harm to one that is new."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

from magtkd.store import take_lock
from tune.ledger import sqlite_uri
from tune.tracking.address import check_address, is_database, sqlite_file
from tune.tracking.schema import check_schema, database_engine

__all__ = [
    "NUM_UPLOADS",
    "SWEEP_TAG",
    "find_experiment",
    "import_mlflow",
    "num_writers",
    "open_client",
    "read_tag",
]

SWEEP_TAG = "magtkd.sweep"
"""The sweep's id, on its experiment and on its runs."""

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


def num_writers(uri: str) -> int:
    """How many may write to the store at once: most of a request is waiting for the answer."""
    return NUM_WRITERS if uri.startswith(("http", "postgresql", "mysql")) else 1


def open_client(uri: str) -> Any:
    """A client of the store, whose tables are made where there are none.

    Raises:
        TrackingError: the address is not one, or its database is another MLflow's.
        Exception: whatever MLflow or the database raises when the store is away.
    """
    check_address(uri)
    mlflow = import_mlflow()
    if (sqlite := sqlite_file(uri)) is not None:
        _create_sqlite(mlflow, sqlite)
    if is_database(uri):
        # MLflow itself would try to connect for a minute and a half, and migrate what is older.
        check_schema(uri)
    return mlflow.MlflowClient(tracking_uri=uri)


def find_experiment(client: Any, sweep_id: str) -> Any:
    """The experiment of a sweep, whatever its name, also if it was deleted; None where there is
    none. An older magtkd left no tag on it: then it is the one that has the sweep's runs.

    Raises:
        Exception: as for `open_client`.
    """
    every = import_mlflow().entities.ViewType.ALL
    query = f"tags.`{SWEEP_TAG}` = '{sweep_id}'"
    for found in client.search_experiments(view_type=every, filter_string=query):
        return found
    listed, token = [], None
    while token != "":
        page = client.search_experiments(view_type=every, page_token=token)
        listed += page
        token = page.token or ""
    by_id = {one.experiment_id: one for one in listed}
    runs = client.search_runs(list(by_id), query, run_view_type=every, max_results=1)
    return by_id[runs[0].info.experiment_id] if runs else None


def read_tag(uri: str, sweep_id: str, name: str) -> str | None:
    """A tag of the run of a sweep that has it; makes nothing.

    Raises:
        Exception: as for `open_client`.
    """
    check_address(uri)
    if is_database(uri):
        return _read_database_tag(uri, sweep_id, name)
    mlflow = import_mlflow()
    client = mlflow.MlflowClient(tracking_uri=uri)
    found = find_experiment(client, sweep_id)
    if found is None:
        return None
    # Those of a deleted experiment were deleted with it, and come back with it.
    views = mlflow.entities.ViewType
    view = views.ALL if found.lifecycle_stage == "deleted" else views.ACTIVE_ONLY
    query = f"tags.`{SWEEP_TAG}` = '{sweep_id}' AND tags.`{name}` != ''"
    runs = client.search_runs([found.experiment_id], query, run_view_type=view, max_results=1)
    return str(runs[0].data.tags[name]) if runs else None


def _read_database_tag(uri: str, sweep_id: str, name: str) -> str | None:
    # Not through MLflow, which makes its tables in a database that has none.
    import sqlalchemy

    sqlite = sqlite_file(uri)
    if sqlite is not None and not sqlite.exists():
        return None
    engine = database_engine(uri)
    try:
        with engine.connect() as connection:
            if not sqlalchemy.inspect(connection).has_table("tags"):
                return None
            query = sqlalchemy.text(
                "SELECT wanted.value FROM tags wanted "
                "JOIN tags held ON held.run_uuid = wanted.run_uuid "
                "JOIN runs ON runs.run_uuid = wanted.run_uuid "
                "JOIN experiments ON experiments.experiment_id = runs.experiment_id "
                "WHERE wanted.key = :name AND held.key = :of AND held.value = :value "
                # Those of a deleted experiment were deleted with it, and come back with it.
                "AND (runs.lifecycle_stage = 'active' OR experiments.lifecycle_stage = 'deleted')"
            )
            values = {"name": name, "of": SWEEP_TAG, "value": sweep_id}
            row = connection.execute(query, values).first()
            return None if row is None else str(row[0])
    finally:
        engine.dispose()


# --- SQLite -----------------------------------------------------------------------------------


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
        new = sqlite_uri(Path(folder, "new.db"))
        mlflow.MlflowClient(new).search_experiments(max_results=1)
        # The client keeps its file open: a copy, so that no one shares it.
        shutil.copyfile(f"{folder}/new.db", f"{folder}/done.db")
        os.replace(f"{folder}/done.db", path)
