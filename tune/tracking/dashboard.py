"""Where a sweep is looked at in MLflow: the address of its view behind that of a server."""

from __future__ import annotations

import importlib.metadata
import shlex
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from tune.ledger import RaceSetup
from tune.redact import redact
from tune.tracking.address import sqlite_file
from tune.tracking.store import find_experiment, import_mlflow, open_client
from tune.tracking.views import BEST_FIRST, confirmed_key, view_path

__all__ = ["dashboard_lines"]

TRIED = ("3.17.2",)
"""The versions of MLflow whose page was seen to open the views. That of another may not."""

ADDRESS = "http://127.0.0.1:5000"
"""Where `mlflow ui` serves."""
SECONDS = 5
"""That a server has to answer: a person waits."""


def dashboard_lines(uri: str, sweep_id: str, race: RaceSetup | None = None) -> list[str]:
    """How to look at a sweep in MLflow: the address of its trials, the best first, or of a
    confirmation's, after the command that serves a database.

    Args:
        uri: the store's address.
        sweep_id: the sweep's.
        race: of the confirmation.
    """
    is_server = uri.startswith(("http://", "https://"))
    words = ["mlflow", "ui", "--host", "127.0.0.1", "--backend-store-uri", redact(uri)]
    try:
        # Before anything else is asked, which a server that hangs would answer much later.
        version = _server_version(uri) if is_server else importlib.metadata.version("mlflow")
        database = sqlite_file(uri)
        # One that is not there is not made.
        is_there = database is None or database.exists()
        found = find_experiment(open_client(uri), sweep_id) if is_there else None
    except Exception:
        # It is away, or refuses: that was said before.
        found = None
    if found is None:
        where = redact(uri) if is_server else shlex.join(words)
        return [f"MLflow: {where}   (choose Model training there)"]
    wanted = BEST_FIRST if race is None else confirmed_key(race)
    key = wanted if version in TRIED else None
    path = view_path(found.experiment_id, key)
    if is_server:
        return [f"MLflow: {_page(uri)}{path}"]
    return [f"MLflow: {shlex.join(words)}", f"then open: {ADDRESS}{path}"]


def _page(uri: str) -> str:
    """A server's address for a browser, which asks for a password by itself."""
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])).rstrip("/")


def _server_version(uri: str) -> str:
    import_mlflow()
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    host: Any = get_default_host_creds(uri)
    answer = http_request(host, "/version", "GET", max_retries=0, timeout=SECONDS)
    answer.raise_for_status()
    return str(answer.text).strip()
