"""Whether a tracking store and a Ray cluster answer; asking creates nothing there."""

from __future__ import annotations

import json
import os
import re
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Literal
from urllib.parse import quote, urlsplit

from tune.tracking.addresses import reason, redact

__all__ = ["Found", "check_cluster", "check_tracking"]

Found = tuple[Literal["ok", "warning", "problem"], str]

CONNECT_SECONDS = 5
CLUSTER_SECONDS = 60
_WAY_OUT = "start it, or set MLFLOW_TRACKING_URI to another"
_IMPATIENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": str(CONNECT_SECONDS),
}
# In a process of its own: Ray's attempts to connect cannot be interrupted.
_ASK_RAY = """
import json, ray
ray.init(log_to_driver=False, logging_level="error")
alive = [node for node in ray.nodes() if node["Alive"]]
print(json.dumps([len(alive), ray.cluster_resources()]))
"""


# --- MLflow -----------------------------------------------------------------------------------


def check_tracking(uri: str) -> Found:
    """Whether a tracking store can be used: its file can be written, or its server answers."""
    if uri.startswith("sqlite:"):
        return _check_sqlite(uri)
    if uri.startswith(("http://", "https://")):
        return _check_server(uri)
    if re.match(r"(postgresql|mysql|mssql)(\+\w+)?:", uri):
        return _check_database(uri)
    return "warning", f"{redact(uri)}: not checked; use sqlite:, http:, https: or postgresql:"


def _check_sqlite(uri: str) -> Found:
    path = Path(uri.removeprefix("sqlite:///").partition("?")[0])
    way_out = "set MLFLOW_TRACKING_URI, or choose another --storage"
    if path.exists():
        try:
            with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as database:
                database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.Error as error:
            return "problem", f"{path}: {error}; {way_out}"
        if os.access(path, os.W_OK) and os.access(path.parent, os.W_OK):
            return "ok", f"{path}: can be written"
        return "problem", f"{path}: cannot be written; {way_out}"
    folder = next(folder for folder in path.absolute().parents if folder.exists())
    if folder.is_dir() and os.access(folder, os.W_OK):
        return "ok", f"{path}: does not exist yet and can be made"
    return "problem", f"{path}: cannot be made in {folder}; {way_out}"


def _check_server(uri: str) -> Found:
    for name, value in _IMPATIENT.items():
        os.environ.setdefault(name, value)
    import mlflow

    try:
        mlflow.MlflowClient(tracking_uri=uri).search_experiments(max_results=1)
    except Exception as error:
        return "problem", f"{redact(uri)}: does not answer: {reason(error)}; {_WAY_OUT}"
    return "ok", f"{redact(uri)}: answers"


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
        return "problem", f"{redact(uri)}: does not answer: {reason(error)}; {_WAY_OUT}"
    return "ok", f"{redact(uri)}: answers"


# --- Ray --------------------------------------------------------------------------------------


def check_cluster(address: str) -> Found:
    """Whether the cluster at `RAY_ADDRESS` answers, and what it has. Without an address a sweep
    starts Ray here, which takes seconds, so that it is not tried."""
    if not address or address == "local":
        return (
            "ok",
            "RAY_ADDRESS is not set: each sweep starts Ray on this machine (not tried here)",
        )
    shown, way_out = redact(address), "start Ray there, or unset RAY_ADDRESS to use this machine"
    try:
        _connect(address)
        answer = subprocess.run(
            [sys.executable, "-c", _ASK_RAY],
            env=os.environ | {"RAY_ADDRESS": address, "RAY_USAGE_STATS_ENABLED": "0"},
            capture_output=True,
            text=True,
            timeout=CLUSTER_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "problem", f"{shown}: no answer in {CLUSTER_SECONDS} s; {way_out}"
    except OSError as error:
        return "problem", f"{shown}: {reason(error)}; {way_out}"
    if answer.returncode:
        last = (answer.stderr.strip().splitlines() or ["no reason given"])[-1]
        return "problem", f"{shown}: cannot be joined: {redact(last)[:200]}; {way_out}"
    num_nodes, resources = json.loads(answer.stdout.splitlines()[-1])
    return "ok", f"{shown}: {num_nodes} node{'s' if num_nodes > 1 else ''}, {_amounts(resources)}"


def _connect(address: str) -> None:
    """Raise at once where nobody listens: Ray itself would try for most of a minute."""
    place = urlsplit(address if "://" in address else f"//{address}").netloc
    host, _, port = place.rpartition("@")[2].rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()


def _amounts(resources: dict[str, float]) -> str:
    parts = [f"{resources.get(name, 0):g} {name}" for name in ("CPU", "GPU")]
    return ", ".join(parts)
