"""Whether a tracking store answers; asking creates nothing there."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from magtkd.errors import TrackingError
from tune.doctor.outcome import Found, Outcome
from tune.redact import reason, redact
from tune.tracking import check_address, check_schema, in_our_words, is_database, sqlite_file

__all__ = ["check_tracking"]

_WAY_OUT = "start it, or set MLFLOW_TRACKING_URI to another"
_IMPATIENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
}


def check_tracking(uri: str) -> Found:
    """Whether a tracking store can be used: its file can be written, or its server answers, and the
    tables of a database are those of the MLflow that is installed."""
    try:
        check_address(uri)
        if (path := sqlite_file(uri)) is not None:
            return _check_sqlite(path, uri)
        if is_database(uri):
            return Outcome.OK, f"{redact(uri)}: answers{_check_schema(uri)}"
        return _check_server(uri)
    except Exception as error:
        found = in_our_words(uri, error)
        if isinstance(found, TrackingError):
            return Outcome.PROBLEM, str(found).removeprefix("tracking at ")
        return Outcome.PROBLEM, f"{redact(uri)}: does not answer: {reason(error)}; {_WAY_OUT}"


def _check_sqlite(path: Path, uri: str) -> Found:
    way_out = "set MLFLOW_TRACKING_URI, or choose another --storage"
    if path.exists():
        try:
            with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as database:
                database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.Error as error:
            return Outcome.PROBLEM, f"{path}: {error}; {way_out}"
        if os.access(path, os.W_OK) and os.access(path.parent, os.W_OK):
            return Outcome.OK, f"{path}: can be written{_check_schema(uri)}"
        return Outcome.PROBLEM, f"{path}: cannot be written; {way_out}"
    folder = next(folder for folder in path.absolute().parents if folder.exists())
    if folder.is_dir() and os.access(folder, os.W_OK):
        return Outcome.OK, f"{path}: does not exist yet and can be made"
    return Outcome.PROBLEM, f"{path}: cannot be made in {folder}; {way_out}"


def _check_schema(uri: str) -> str:
    """The schema of MLflow's tables, where there are any.

    Raises:
        TrackingError: it is another MLflow's.
        Exception: whatever the database raises when it is away.
    """
    schema = check_schema(uri)
    return f", MLflow's schema {schema.found}" if schema is not None and schema.found else ""


def _check_server(uri: str) -> Found:
    for name, value in _IMPATIENT.items():
        os.environ.setdefault(name, value)
    import mlflow

    mlflow.MlflowClient(tracking_uri=uri).search_experiments(max_results=1)
    return Outcome.OK, f"{redact(uri)}: answers"
