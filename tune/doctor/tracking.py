"""Whether a tracking store answers; asking creates nothing there."""

from __future__ import annotations

import os
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from tune.doctor.outcome import Found, Outcome
from tune.redact import reason, redact

__all__ = ["check_tracking"]

CONNECT_SECONDS = 5
_WAY_OUT = "start it, or set MLFLOW_TRACKING_URI to another"
_IMPATIENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": str(CONNECT_SECONDS),
}


def check_tracking(uri: str) -> Found:
    """Whether a tracking store can be used: its file can be written, or its server answers."""
    if uri.startswith("sqlite:"):
        return _check_sqlite(uri)
    if uri.startswith(("http://", "https://")):
        return _check_server(uri)
    if re.match(r"(postgresql|mysql|mssql)(\+\w+)?:", uri):
        return _check_database(uri)
    return Outcome.WARNING, f"{redact(uri)}: not checked; use sqlite:, http:, https: or postgresql:"


def _check_sqlite(uri: str) -> Found:
    path = Path(uri.removeprefix("sqlite:///").partition("?")[0])
    way_out = "set MLFLOW_TRACKING_URI, or choose another --storage"
    if path.exists():
        try:
            with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as database:
                database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.Error as error:
            return Outcome.PROBLEM, f"{path}: {error}; {way_out}"
        if os.access(path, os.W_OK) and os.access(path.parent, os.W_OK):
            return Outcome.OK, f"{path}: can be written"
        return Outcome.PROBLEM, f"{path}: cannot be written; {way_out}"
    folder = next(folder for folder in path.absolute().parents if folder.exists())
    if folder.is_dir() and os.access(folder, os.W_OK):
        return Outcome.OK, f"{path}: does not exist yet and can be made"
    return Outcome.PROBLEM, f"{path}: cannot be made in {folder}; {way_out}"


def _check_server(uri: str) -> Found:
    for name, value in _IMPATIENT.items():
        os.environ.setdefault(name, value)
    import mlflow

    try:
        mlflow.MlflowClient(tracking_uri=uri).search_experiments(max_results=1)
    except Exception as error:
        return Outcome.PROBLEM, f"{redact(uri)}: does not answer: {reason(error)}; {_WAY_OUT}"
    return Outcome.OK, f"{redact(uri)}: answers"


def _check_database(uri: str) -> Found:
    import sqlalchemy

    timeout = {"connect_timeout": CONNECT_SECONDS} if not uri.startswith("mssql") else {}
    try:
        engine = sqlalchemy.create_engine(uri, connect_args=timeout)
        try:
            with engine.connect() as connection:
                connection.execute(sqlalchemy.text("SELECT 1"))
        finally:
            engine.dispose()
    except Exception as error:
        return Outcome.PROBLEM, f"{redact(uri)}: does not answer: {reason(error)}; {_WAY_OUT}"
    return Outcome.OK, f"{redact(uri)}: answers"
