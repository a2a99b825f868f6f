"""Addresses of tracking stores: what kind of store each is, and which cannot be one."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from magtkd.errors import TrackingError, shorten
from tune.redact import redact

__all__ = ["check_address", "is_database", "sqlite_file"]

DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
WAY_OUT = "give sqlite:///FILE, postgresql://USER@HOST/DATABASE, or a server's http://HOST:PORT"


def is_database(uri: str) -> bool:
    """Whether an address is that of a database, and not of a server."""
    return uri.partition(":")[0].partition("+")[0] in DATABASES


def sqlite_file(uri: str) -> Path | None:
    """The file of an SQLite address; None for other addresses.

    Raises:
        TrackingError: it is not an address, or in memory, which no other process sees.
    """
    if uri.partition(":")[0].partition("+")[0] != "sqlite":
        return None
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(uri)
    except ArgumentError:
        raise _refused(uri, "not an address of SQLite", "give sqlite:///FILE") from None
    database = url.database or ""
    is_in_memory = database in {"", ":memory:", "file::memory:"}
    if is_in_memory or url.query.get("mode") == "memory" or url.host:
        raise _refused(
            uri,
            "a name of a host" if url.host else "in memory, so that it is lost with this process",
            "give sqlite:///FILE, which has three slashes, or four before an absolute path",
        )
    return Path(database.removeprefix("file:") if "uri" in url.query else database)


def check_address(uri: str) -> None:
    """Refuse what cannot be a tracking store's address, without asking it. A folder of files is
    MLflow's to refuse.

    Raises:
        TrackingError: it is not one.
    """
    if is_database(uri):
        sqlite_file(uri)
        return
    try:
        scheme, host = urlsplit(uri).scheme, urlsplit(uri).hostname
    except ValueError as error:
        raise _refused(uri, str(error), WAY_OUT) from None
    if scheme in {"http", "https"}:
        if not host:
            raise _refused(uri, "has no host", WAY_OUT)
    elif scheme not in {"", "file"} and not scheme.startswith("databricks"):
        raise _refused(uri, "not an address that MLflow takes", WAY_OUT)


def _refused(uri: str, why: str, way_out: str) -> TrackingError:
    return TrackingError(f"tracking at {shorten(redact(uri))}: {why}", way_out)
