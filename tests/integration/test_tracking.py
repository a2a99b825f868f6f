"""MLflow equals the ledger in real stores: sent twice, in outages, by senders that are killed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from magtkd.errors import StorageLostError
from tests.integration.servers import PASSWORD, MlflowServer, Postgres, Process, wait_for
from tests.tracked import check_equal, rows, story, write_story
from tune.ledger import Ledger, SweepLayout, Warned, read_events
from tune.tracking import Tracker, follower, num_behind, sync
from tune.tracking import tracker as tracking
from tune.tracking.store import open_client

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

STORES = ("sqlite", "postgres", "server_on_sqlite", "server_on_postgres")


@dataclass
class Place:
    """A tracking store: its address, the database behind it, and what can be killed."""

    uri: str
    database: str
    process: Process | None = None
    folder: Path | None = None


# --- the stores -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> Place:
    uri = f"sqlite:///{tmp_path_factory.mktemp('sqlite')}/mlflow.db"
    open_client(uri)  # makes its tables, which takes seconds
    return Place(uri, uri)


@pytest.fixture(scope="module")
def database() -> Iterator[Postgres]:
    running = Postgres()
    running.start()
    yield running
    running.remove()


@pytest.fixture(scope="module")
def postgres(database: Postgres) -> Place:
    return Place(database.uri, database.uri, database)


@pytest.fixture(scope="module")
def server_on_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("server")
    server = MlflowServer(folder, f"sqlite:///{folder}/server.db")
    server.start()
    yield Place(server.uri, f"sqlite:///{folder}/server.db", server, server.artifacts)
    server.kill()


@pytest.fixture(scope="module")
def server_on_postgres(
    database: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    server = MlflowServer(tmp_path_factory.mktemp("server"), database.uri)
    server.start()
    # Of the two it is the database that is killed.
    yield Place(server.uri, database.uri, database, server.artifacts)
    server.kill()


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Place:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Place)
    return found


in_every_store = pytest.mark.parametrize("place", STORES, indirect=True)


@pytest.fixture
def layout(request: pytest.FixtureRequest, tmp_path: Path) -> SweepLayout:
    """A directory for a sweep; its name, which is that of the experiment, is of one test alone."""
    return SweepLayout(tmp_path, request.node.name.replace("[", "-").strip("]"))


@pytest.fixture
def in_small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many chunks, and no long waits for a store that is away."""
    monkeypatch.setattr(follower, "CHUNK_BYTES", 3000)
    monkeypatch.setattr(tracking, "INTERVAL_SECONDS", 0.05)
    monkeypatch.setattr(tracking, "LONGEST_WAIT_SECONDS", 0.3)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")


def forget_cursor(place: Place, name: str) -> None:
    engine = sqlalchemy.create_engine(place.database, poolclass=sqlalchemy.pool.NullPool)
    with engine.begin() as connection:
        query = (
            "DELETE FROM tags WHERE key = 'magtkd.cursor' AND run_uuid IN "
            "(SELECT run_uuid FROM runs WHERE name = :name)"
        )
        assert connection.execute(sqlalchemy.text(query), {"name": name}).rowcount == 1
    engine.dispose()


def check_no_secret(place: Place, path: Path, noted: list[str]) -> None:
    """The password of the store, and of the data, is in nothing that was shown or written."""
    assert PASSWORD not in str(noted)
    assert PASSWORD not in str(rows(place.database, path.parent.name))
    files = [one for one in path.parent.rglob("*") if one != path]
    if place.folder is not None:
        files += place.folder.rglob("*")
    written = [one for one in files if one.is_file()]
    assert any(one.name == "sweep.yaml" for one in written)
    for one in written:
        assert PASSWORD.encode() not in one.read_bytes(), one
    # Of the data alone, which was made up for this: the sweep writes no password of its store.
    assert f"{PASSWORD}@127" not in path.read_text()


# --- one contract for every store -------------------------------------------------------------


@in_every_store
def test_a_store_equals_the_ledger_however_often_it_is_sent(
    place: Place, layout: SweepLayout, in_small_steps: None
) -> None:
    noted: list[str] = []
    write_story(layout)
    path = layout.ledger
    num_events = len(list(read_events(path)))
    assert sync(layout, place.uri, note=noted.append) == num_events
    found = rows(place.database, layout.name)
    check_equal(found, path)
    check_no_secret(place, path, noted)
    assert num_behind(layout, place.uri) == 0

    assert sync(layout, place.uri) == 0
    forget_cursor(place, layout.name)
    assert num_behind(layout, place.uri) == num_events
    for _ in range(2):
        sync(layout, place.uri)
        assert rows(place.database, layout.name) == found
    assert noted == []


@pytest.mark.parametrize(
    "place", ["postgres", "server_on_sqlite", "server_on_postgres"], indirect=True
)
def test_outages_cost_nothing_and_are_caught_up(
    place: Place, layout: SweepLayout, in_small_steps: None, caplog: pytest.LogCaptureFixture
) -> None:
    assert place.process is not None
    noted: list[str] = []
    events = list(story(layout.name))
    # A server that has never seen its database takes minutes to find it.
    is_away_first = not place.uri.startswith("http")
    if is_away_first:
        place.process.kill()
    with Ledger(layout) as ledger:
        tracker = Tracker(ledger.layout, place.uri, note=noted.append)
        for event in events[:9]:
            ledger.append(event)
        if is_away_first:
            wait_for(lambda: tracker.behind)
            place.process.start()
        wait_for(lambda: tracker.num_left() == 0 and not tracker.behind)
        killer = threading.Timer(0.05, place.process.kill)
        killer.start()
        for event in events[9:60]:
            ledger.append(event)
            time.sleep(0.003)
        killer.join()
        ledger.append(Warned(message="nothing else happens"))
        wait_for(lambda: tracker.behind)
        started = time.monotonic()
        for event in events[60:]:
            ledger.append(event)
        # Appending never waits for a store: some 50 events, where an attempt takes seconds.
        assert time.monotonic() - started < 1
        with pytest.raises(StorageLostError, match="tracking at "):
            num_behind(ledger.layout, place.uri)
        place.process.start()
        wait_for(lambda: not tracker.behind)
        assert tracker.close(60) == 0
    check_equal(rows(place.database, layout.name), ledger.path)
    check_no_secret(place, ledger.path, noted)
    kinds = [line.split(":")[0] for line in noted]
    assert kinds == ["tracking is behind", "tracking has caught up"] * (1 + is_away_first)
    assert all("***@127.0.0.1" in line for line in noted)
    assert caplog.records == []


KILLED_SENDER = """
import os, random, signal, sys, time, warnings
from tune.ledger import SweepLayout
from tune.tracking import follower, sync
from tune.tracking.store import import_mlflow

import_mlflow()
warnings.filterwarnings("ignore", message=".*multi-threaded.*fork")
follower.CHUNK_BYTES = 3000
moments, num_killed = random.Random(int(sys.argv[4])), 0
while num_killed < 100:
    child = os.fork()
    if not child:
        sync(SweepLayout.of(sys.argv[1], sys.argv[2]), sys.argv[3])
        os._exit(0)
    # Longer each time, so that one comes to its end.
    time.sleep(moments.uniform(0.01, 0.2 * (num_killed + 1)))
    os.kill(child, signal.SIGKILL)
    if not os.waitpid(child, 0)[1]:
        break
    num_killed += 1
print(num_killed)
"""


@pytest.mark.parametrize("place", ["sqlite", "server_on_postgres"], indirect=True)
def test_a_sender_may_be_killed_at_any_moment(place: Place, layout: SweepLayout) -> None:
    write_story(layout)
    arguments = [str(layout.root), layout.name, place.uri, "7"]
    command = [sys.executable, "-W", "default", "-c", KILLED_SENDER, *arguments]
    # What a killed process leaves in the folder for temporary files is not to stay there.
    env = os.environ | {"TMPDIR": str(layout.root)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, env=env)
    assert done.stderr == ""
    assert int(done.stdout) > 1
    sync(layout, place.uri)
    check_equal(rows(place.database, layout.name), layout.ledger)


# --- a real sweep -----------------------------------------------------------------------------


@pytest.mark.ray
@pytest.mark.usefixtures("ray_running")
def test_a_sweep_goes_on_while_its_server_is_killed(
    server_on_sqlite: Place,
    tmp_path: Path,
    tiny_sweep: Callable[..., Any],
    run: Callable[..., Any],
) -> None:
    place = server_on_sqlite
    assert place.process is not None
    sweep = tiny_sweep(
        "outage",
        {"fusion.dropout": {"float": [0.0, 0.5]}},
        search={"sampler": "random", "num_trials": 4},
        fusion={"epochs": 10},
    )
    layout = SweepLayout(tmp_path, "outage")
    path = layout.ledger

    def outage() -> None:
        wait_for(lambda: path.is_file() and b"trial_report" in path.read_bytes())
        place.process.kill()
        place.process.start()

    breaking = threading.Thread(target=outage)
    breaking.start()
    state = run(sweep, tmp_path, tracking_uri=place.uri)
    breaking.join()
    assert state.count() == {"completed": 4}
    # It may have ended before the server was back.
    sync(layout, place.uri)
    found = rows(place.database, "outage")
    check_equal(found, path)
    assert PASSWORD not in path.read_text() + str(found)
    assert os.listdir(place.folder)
