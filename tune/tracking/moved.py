"""Artifacts of runs in a database, whose storage folder was moved.

MLflow keeps the whole path of each run's artifacts in the database, so that those of a folder that
was moved would be looked for, and new ones written, at its old place.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from tune.tracking.address import sqlite_file
from tune.tracking.schema import database_engine

__all__ = ["move_artifacts"]


def move_artifacts(uri: str, experiment_id: str, before: str, folder: Path) -> None:
    """Let an experiment and its runs have their artifacts where the sweep's folder is now. The
    files are there already.

    Args:
        uri: the database's address.
        experiment_id: the sweep's experiment.
        before: the place that the database has, as an address.
        folder: the sweep's folder of artifacts.

    Raises:
        Exception: whatever the database raises when it is away.
    """
    folder = folder.resolve()
    then = Path(unquote(urlsplit(before).path))
    # What someone else chose as the place, such as a bucket, is left as it is.
    if then == folder or not before.startswith("file:") or then.parts[-3:] != folder.parts[-3:]:
        return
    # A database in the storage was moved or copied with it. Another may be used by two copies.
    database, storage = sqlite_file(uri), folder.parents[2]
    is_inside = database is not None and database.resolve().is_relative_to(storage)
    if not is_inside and then.is_dir():
        return
    from sqlalchemy import Integer, String, column, func, table, update

    engine = database_engine(uri)
    try:
        with engine.begin() as connection:
            for name, place in (("runs", "artifact_uri"), ("experiments", "artifact_location")):
                of, at = column("experiment_id", Integer), column(place, String)
                query = update(table(name, of, at)).where(of == int(experiment_id))
                query = query.where(at.startswith(before, autoescape=True))
                connection.execute(query.values({place: func.replace(at, before, folder.as_uri())}))
    finally:
        engine.dispose()
