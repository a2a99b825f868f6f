"""Tracking stores as they are met: addresses, refusals, older schemas, names, moved storages."""

from __future__ import annotations

import json
import shutil
import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from magtkd.errors import MagtkdError, StorageLostError, TrackingError
from tests.tracked import rows, write_story
from tune.ledger import RaceSetup, SweepLayout, read_events, read_sweep, sqlite_uri
from tune.redact import redact
from tune.tracking import (
    Tracker,
    attach,
    check_store,
    dashboard,
    dashboard_lines,
    num_behind,
    sqlite_file,
    sync,
    tracker,
)
from tune.tracking.refusals import in_our_words
from tune.tracking.store import import_mlflow, open_client
from tune.tracking.views import VIEW_TAG, view_path

# MLflow's own: it uses an option of SQLAlchemy that is going away.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated store without runs: making one takes seconds."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    open_client(sqlite_uri(path))
    return path


@pytest.fixture
def storage(empty_store: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "storage"
    folder.mkdir()
    shutil.copyfile(empty_store, folder / "mlflow.db")
    return folder


def client_of(uri: str) -> Any:
    return import_mlflow().MlflowClient(uri)


def experiments(uri: str) -> dict[str, Any]:
    every = import_mlflow().entities.ViewType.ALL
    found = client_of(uri).search_experiments(view_type=every)
    return {one.name: one for one in found if one.name != "Default"}


def num_events(layout: SweepLayout) -> int:
    return len(list(read_events(layout.ledger)))


# --- addresses --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a b", "a%20b", "a?b=1&c", "a#b", "ü@ñ:é", "100%"])
def test_a_folder_may_have_any_name(empty_store: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    shutil.copyfile(empty_store, folder / "mlflow.db")
    layout = write_story(SweepLayout(folder, "mosi"))
    uri = layout.tracking_uri
    assert sqlite_file(uri) == folder / "mlflow.db"
    assert num_behind(layout, uri) == num_events(layout) == sync(layout, uri)
    assert num_behind(layout, uri) == 0
    assert {path.name for path in tmp_path.iterdir()} == {name}
    (run,) = (folder / "sweeps/mosi/mlflow").rglob("sweep.yaml")
    assert run.is_file()


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("sqlite://", "in memory, .*; give sqlite:///FILE, which has three slashes"),
        ("sqlite:///:memory:", "in memory"),
        ("sqlite:///file:x?mode=memory&uri=true", "in memory"),
        ("sqlite://mlflow.db", "a name of a host; give sqlite:///FILE"),
        ("mlflow.lab:5000", "not an address that MLflow takes; give .* http://HOST:PORT"),
        ("htp://mlflow.lab", "not an address that MLflow takes"),
        ("http://", "has no host"),
        ("http://[", "Invalid IPv6 URL"),
        ("postgresql+nope://ann:pa@h/x", "Can't load plugin: .*; install the database's driver"),
        ("{}", "a folder of files, .*, or set MLFLOW_ALLOW_FILE_STORE=true$"),
        ("./mlruns", "a folder of files"),
    ],
)
def test_what_cannot_be_a_store_is_refused_for_good(
    storage: Path, monkeypatch: pytest.MonkeyPatch, uri: str, message: str
) -> None:
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)
    layout = write_story(SweepLayout(storage, "mosi"))
    for call in (sync, num_behind):
        with pytest.raises(TrackingError, match=message) as refused:
            call(layout, uri)
        assert "pa@" not in str(refused.value)
        assert "\n" not in str(refused.value)


# --- servers that refuse ----------------------------------------------------------------------


class Answer(BaseHTTPRequestHandler):
    """Gives the same answer to everything."""

    status, body = 200, b"{}"

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    do_POST = do_GET  # noqa: N815

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    running = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}"
    running.shutdown()
    running.server_close()


IS_OTHER = "does not answer as MLflow does: .*; check the address"


@pytest.mark.parametrize(
    ("status", "body", "kind", "message"),
    [
        (401, "who?", TrackingError, r"asks who you are \(401\): .*; set MLFLOW_TRACKING_USERNAME"),
        (401, '{"error_code":"UNAUTHENTICATED"}', TrackingError, r"\(401\)"),
        (403, "<html>", TrackingError, r"does not let you in \(403\).*, of who may write$"),
        (403, '{"error_code":"PERMISSION_DENIED","message":"no"}', TrackingError, r"\(403\)"),
        (403, "{}", TrackingError, IS_OTHER),
        (404, "<html>not here</html>", TrackingError, IS_OTHER),
        (400, "<html>", TrackingError, IS_OTHER),
        # What MLflow itself answers where its database breaks off.
        (400, '{"error_code":"BAD_REQUEST","message":"closed"}', StorageLostError, "closed; try"),
        (405, "", TrackingError, IS_OTHER),
        (302, "", TrackingError, IS_OTHER),
        (200, "<html>a router</html>", TrackingError, IS_OTHER),
        (200, "{}", TrackingError, IS_OTHER),
        (500, "{}", StorageLostError, "too many 500 .*; try again when it answers"),
        (503, "busy", StorageLostError, "too many 503 .*; try again when it answers"),
    ],
)
def test_a_refusal_that_lasts_is_not_shown_as_one_that_passes(
    storage: Path,
    server: str,
    status: int,
    body: str,
    kind: type[MagtkdError],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tracker, "PATIENCE_SECONDS", 0.1)
    Answer.status, Answer.body = status, body.encode()
    layout = write_story(SweepLayout(storage, "mosi"))
    with pytest.raises(kind, match=message):
        sync(layout, server)
    noted: list[str] = []
    following = Tracker(layout, server, note=noted.append)
    assert following.close() == num_events(layout)
    (line,) = noted
    assert line.startswith("tracking has stopped" if kind is TrackingError else "tracking is beh")


def test_a_server_that_never_answers_is_named(
    storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracker, "SILENT_SECONDS", 0.1)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    layout = write_story(SweepLayout(storage, "mosi"))
    noted: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        uri = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(StorageLostError, match="try again when it answers"):
            sync(layout, uri, note=noted.append)
    assert noted == [f"tracking at {uri}: waiting for an answer"]


def test_a_certificate_is_not_a_passing_fault() -> None:
    import ssl

    error = OSError("Max retries exceeded")
    error.__cause__ = ssl.SSLCertVerificationError(1, "self-signed certificate")
    found = in_our_words("https://ann:pa@h", error)
    assert isinstance(found, TrackingError)
    assert str(found) == (
        "tracking at https://***@h: its certificate is not trusted: self-signed certificate; name "
        "the authority in REQUESTS_CA_BUNDLE"
    )


# --- schemas ----------------------------------------------------------------------------------

OF_2_8_1 = "acf3f17fdcc7"


def set_schema(storage: Path, revision: str) -> None:
    with closing(sqlite3.connect(storage / "mlflow.db")) as database:
        database.execute("UPDATE alembic_version SET version_num = ?", (revision,))
        database.commit()


@pytest.mark.parametrize(
    ("revision", "message"),
    [
        (OF_2_8_1, f"schema {OF_2_8_1}, which is older than .* give --migrate-tracking"),
        ("ffffffffffff", "schema ffffffffffff, and MLflow .* here knows .*; install the MLflow"),
    ],
)
def test_a_database_of_another_mlflow_is_left_as_it_is(
    storage: Path, revision: str, message: str
) -> None:
    set_schema(storage, revision)
    before = (storage / "mlflow.db").read_bytes()
    layout = write_story(SweepLayout(storage, "mosi"))
    uri = layout.tracking_uri
    with pytest.raises(TrackingError, match=message):
        check_store(uri)
    with pytest.raises(TrackingError, match=message):
        sync(layout, uri)
    assert num_behind(layout, uri) == num_events(layout)
    assert (storage / "mlflow.db").read_bytes() == before


def test_a_database_of_an_older_mlflow_is_migrated_where_that_is_asked_for(
    tmp_path: Path,
) -> None:
    """Made by the scripts of MLflow itself, up to the schema of MLflow 2.8.1."""
    import_mlflow()
    import sqlalchemy
    from alembic import command
    from mlflow.store.db.utils import InitialBase, _get_alembic_config

    layout = write_story(SweepLayout(tmp_path, "mosi"))
    uri = layout.tracking_uri
    engine = sqlalchemy.create_engine(uri)
    InitialBase.metadata.create_all(engine)
    with engine.begin() as connection:
        config = _get_alembic_config(uri)
        config.attributes["connection"] = connection
        command.upgrade(config, OF_2_8_1)
    engine.dispose()
    with pytest.raises(TrackingError, match=f"{OF_2_8_1}, which is older than"):
        sync(layout, uri)
    check_store(uri, migrating=True)
    assert sync(layout, uri) == num_events(layout)


# --- names ------------------------------------------------------------------------------------


def test_a_renamed_experiment_is_still_the_sweep_s(storage: Path) -> None:
    layout = write_story(SweepLayout(storage, "mosi"))
    uri = layout.tracking_uri
    sync(layout, uri)
    found = rows(uri, "mosi")
    (experiment,) = experiments(uri).values()
    client_of(uri).rename_experiment(experiment.experiment_id, "of the paper")
    assert num_behind(layout, uri) == 0
    assert sync(layout, uri) == 0
    assert set(experiments(uri)) == {"of the paper"}
    assert rows(uri, "of the paper") == found


@pytest.mark.parametrize("was_deleted", [False, True])
def test_a_new_sweep_of_an_old_name_has_an_experiment_of_its_own(
    storage: Path, was_deleted: bool
) -> None:
    old = write_story(SweepLayout(storage, "mosi"))
    uri = old.tracking_uri
    sync(old, uri)
    (experiment,) = experiments(uri).values()
    if was_deleted:
        client_of(uri).delete_experiment(experiment.experiment_id)
    shutil.rmtree(old.folder)
    new, noted = write_story(SweepLayout(storage, "mosi")), list[str]()
    sweep_id = next(iter(read_events(new.ledger))).sweep_id  # type: ignore[attr-defined]
    assert num_behind(new, uri) == num_events(new)
    assert sync(new, uri, note=noted.append) == num_events(new)
    assert num_behind(new, uri) == 0
    name = f"mosi-{sweep_id[:8]}"
    assert noted == [
        "tracking: another sweep's experiment has the name 'mosi'; this sweep's is " + repr(name)
    ]
    stages = {one.name: one.lifecycle_stage for one in experiments(uri).values()}
    assert stages == {"mosi": "deleted" if was_deleted else "active", name: "active"}


def test_an_experiment_that_was_deleted_comes_back_whole(storage: Path) -> None:
    layout = write_story(SweepLayout(storage, "mosi"))
    uri = layout.tracking_uri
    sync(layout, uri)
    (experiment,) = experiments(uri).values()
    client_of(uri).delete_experiment(experiment.experiment_id)
    assert num_behind(layout, uri) == 0
    assert sync(layout, uri) == 0
    assert experiments(uri)["mosi"].lifecycle_stage == "active"


def test_an_experiment_of_an_older_magtkd_is_found_by_its_runs(storage: Path) -> None:
    layout = write_story(SweepLayout(storage, "mosi"))
    uri = layout.tracking_uri
    sync(layout, uri)
    (experiment,) = experiments(uri).values()
    client = client_of(uri)
    client.delete_experiment_tag(experiment.experiment_id, "magtkd.sweep")
    client.rename_experiment(experiment.experiment_id, "before")
    assert sync(layout, uri) == 0
    assert "magtkd.sweep" in experiments(uri)["before"].tags


# --- places -----------------------------------------------------------------------------------


@pytest.mark.parametrize("is_copy", [False, True])
def test_artifacts_of_a_moved_storage_are_where_the_storage_is(
    storage: Path, tmp_path: Path, is_copy: bool
) -> None:
    layout = write_story(SweepLayout(storage, "mosi"))
    sync(layout, layout.tracking_uri)
    place = tmp_path / "moved %20"
    if is_copy:
        shutil.copytree(storage, place)
    else:
        storage.rename(place)
    moved = SweepLayout(place, "mosi")
    uri = moved.tracking_uri
    before = [path for path in sorted(tmp_path.rglob("*")) if path.suffix != ".lock"]
    assert sync(moved, uri) == 0
    client = client_of(uri)
    (experiment,) = experiments(uri).values()
    assert experiment.artifact_location == moved.mlflow_artifacts.as_uri()
    runs = {run.info.run_name: run.info for run in client.search_runs([experiment.experiment_id])}
    assert all(run.artifact_uri.startswith(experiment.artifact_location) for run in runs.values())
    assert [one.path for one in client.list_artifacts(runs["mosi"].run_id)] == ["sweep.yaml"]
    # Sent again, they are written there and nowhere else.
    client.set_tag(runs["mosi"].run_id, "magtkd.cursor", "0")
    shutil.rmtree(moved.mlflow_artifacts)
    assert sync(moved, uri) == num_events(moved)
    assert [one.path for one in client.list_artifacts(runs["mosi"].run_id)] == ["sweep.yaml"]
    assert [path for path in sorted(tmp_path.rglob("*")) if path.suffix != ".lock"] == before


# --- a file with the sweep's run --------------------------------------------------------------


def test_a_file_is_logged_with_the_sweep_s_run_alone_and_replaced(storage: Path) -> None:
    layout = write_story(SweepLayout(storage, "mosi"))
    uri = layout.tracking_uri
    with pytest.raises(TrackingError, match=r"has no run of sweep 'mosi'; .* magtkd sync mosi"):
        attach(layout, uri, "report.html", "one", print)
    sync(layout, uri)
    for content in ("one", "two"):
        attach(layout, uri, "report.html", content, print)
    (path,) = layout.mlflow_artifacts.rglob("report.html")
    assert path.read_text() == "two"
    assert (path.parent / "sweep.yaml").is_file()
    assert num_behind(layout, uri) == 0


def test_a_file_needs_a_store_that_is_there(tmp_path: Path) -> None:
    layout = write_story(SweepLayout(tmp_path, "mosi"))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(TrackingError, match="has no run of sweep"):
        attach(layout, sqlite_uri(tmp_path / "none.db"), "report.html", "one", print)
    assert sorted(tmp_path.rglob("*")) == before


# --- views ------------------------------------------------------------------------------------


def test_views_are_written_once_and_never_over_a_person_s(storage: Path) -> None:
    layout = SweepLayout(storage, "toy")
    write_story(layout)
    uri = layout.tracking_uri
    sync(layout, uri)

    def tags() -> dict[str, str]:
        return dict(experiments(uri)["toy"].tags)

    written = {name: value for name, value in tags().items() if VIEW_TAG in name}
    assert [name.removeprefix(VIEW_TAG) for name in sorted(written)] == [
        "magtkd-best-first",
        "magtkd-curves",
        "magtkd-values",
    ]
    client, experiment = client_of(uri), experiments(uri)["toy"].experiment_id
    (own,) = client.search_runs([experiment], "tags.`magtkd.views` != ''")
    link = f"[Best first](#{view_path(experiment, 'magtkd-best-first')[2:]})"
    assert link in own.data.tags["mlflow.note.content"]
    first, curves, values = (
        f"{VIEW_TAG}magtkd-{key}" for key in ("best-first", "curves", "values")
    )
    changed = json.dumps(json.loads(written[first]) | {"name": "Mine", "updatedAt": 9})
    client.set_experiment_tag(experiment, first, changed)
    client.set_experiment_tag(experiment, f"{VIEW_TAG}x1", "a person's")
    client.delete_experiment_tag(experiment, curves)
    before = tags()
    sync(layout, uri)
    assert tags() == before
    # What an older magtkd wrote is brought up to date, and what a person has stays.
    client.set_tag(own.info.run_id, "magtkd.views", "older")
    client.set_experiment_tag(experiment, values, written[curves])
    sync(layout, uri)
    assert tags() == before | {curves: written[curves], values: written[values]}


def test_the_printed_address_opens_the_view_in_the_version_that_was_tried(
    storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = SweepLayout(storage, "toy")
    write_story(layout)
    uri, sweep_id = layout.tracking_uri, read_sweep(layout).sweep_id
    assert dashboard_lines(uri, sweep_id)[0].endswith("mlflow.db   (choose Model training there)")
    sync(layout, uri)
    experiment = experiments(uri)["toy"].experiment_id
    runs = f"/#/experiments/{experiment}/runs?workflowType=machine_learning"
    command, address = dashboard_lines(uri, sweep_id)
    assert command == f"MLflow: mlflow ui --host 127.0.0.1 --backend-store-uri {uri}"
    view = "&viewStateShareKey=magtkd-best-first"
    assert address == f"then open: http://127.0.0.1:5000{runs}{view}"
    race = RaceSetup(name="confirm-2", sweep_id=sweep_id, entries=(), seeds=(1, 2))
    assert dashboard_lines(uri, sweep_id, race)[1].endswith("&viewStateShareKey=magtkd-confirm-2")
    monkeypatch.setattr(dashboard, "TRIED", ("0.1",))
    assert dashboard_lines(uri, sweep_id)[1] == f"then open: http://127.0.0.1:5000{runs}"


def test_a_server_that_is_away_has_no_page(server: str) -> None:
    for uri in ("http://ann:s3cr3t@127.0.0.1:9", server):
        (line,) = dashboard_lines(uri, "s1")
        assert line == f"MLflow: {redact(uri)}   (choose Model training there)"
