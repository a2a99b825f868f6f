"""The doctor finds each problem and its remedy, shows no secret, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import socket
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest

from magtkd.cli import run_app
from magtkd.errors import StorageLostError
from magtkd.store import Store
from tune.cli import app
from tune.doctor import checks as doctor
from tune.doctor.checks import run_checks
from tune.doctor.cluster import check_cluster
from tune.doctor.tracking import check_tracking

# MLflow's own: it uses an option of SQLAlchemy that is going away.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")

CHECK_DEVICES = doctor._check_devices
OUTCOMES = {"ok", "warning", "problem"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and an empty environment."""
    monkeypatch.chdir(tmp_path)
    for name in (*doctor.SHOWN, *doctor.SECRET):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    return tmp_path


@pytest.fixture
def closed_port() -> int:
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Starts a server that gives one answer to everything; its address."""
    servers = []

    def start(status: int, body: bytes) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET  # noqa: N815 (the library's name)

            def log_message(self, *arguments: Any) -> None:
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://ann:hunter2@127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


# --- the command ------------------------------------------------------------------------------


def test_a_machine_that_is_all_right(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = run_app(app, ["doctor", "--json"])
    checks = json.loads(capsys.readouterr().out)
    found = {check["name"]: check for check in checks}
    assert {*doctor.PACKAGES, "python", "devices", "storage", "tracking", "cluster"} <= set(found)
    assert len(found) == len(checks)
    assert all(check["outcome"] in OUTCOMES for check in checks)
    assert code == any(check["outcome"] == "problem" for check in checks)
    assert all(check["message"].isprintable() and check["message"] for check in checks)
    for name in ("python", "storage", "tracking", "cluster", *doctor.PACKAGES):
        assert found[name]["outcome"] == "ok", found[name]
    assert "does not exist yet and can be made" in found["tracking"]["message"]
    assert list(folder.iterdir()) == []


def test_a_problem_is_exit_code_1(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    closed_port: int,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://ann:hunter2@127.0.0.1:{closed_port}/x")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter3")
    monkeypatch.setenv("HF_TOKEN", "hunter4")
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{closed_port}")
    assert run_app(app, ["doctor", "--storage", "s3://key:hunter5@127.0.0.1:1/x?scheme=ftp"]) == 1
    out, err = capsys.readouterr()
    assert err == ""
    assert "hunter" not in out
    lines = {line[9:25].strip(): line for line in out.splitlines()}
    assert all(line.split()[0] in OUTCOMES for line in lines.values())
    for name, words in {
        "tracking": "does not answer: Connection refused; start it, or set MLFLOW_TRACKING_URI",
        "cluster": "Connection refused; start Ray there, or give no address",
        "storage": "storage",
    }.items():
        assert lines[name].startswith("problem ")
        assert words in lines[name]
    assert "MLFLOW_TRACKING_PASSWORD is set" in lines["environment"]
    assert "HF_TOKEN is set" in lines["environment"]
    assert list(folder.iterdir()) == []


def test_a_check_that_breaks_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(uri: str) -> Any:
        raise RuntimeError("at http://a:hunter2@h\nin two lines")

    monkeypatch.setattr(doctor, "check_tracking", broken)
    check = next(check for check in run_checks("x") if check.name == "tracking")
    message = "cannot be checked: at http://***@h; see the others"
    assert (check.outcome, check.message) == ("problem", message)


# --- versions, storage, this machine ----------------------------------------------------------


def checked(name: str, storage: str = "results") -> tuple[str, str]:
    return next((c.outcome, c.message) for c in run_checks(storage) if c.name == name)


@pytest.fixture(autouse=True)
def quick(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Most tests look at one check, and torch takes seconds to load."""
    if "all_right" not in request.node.name:
        monkeypatch.setattr(doctor, "_check_devices", lambda: ("ok", "some"))


def test_a_version_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: "1.2.3")
    outcome, message = checked("ray")
    assert outcome == "problem"
    assert message.startswith("1.2.3, but magtkd needs ray[tune]>=")
    assert "; run pip install 'ray[tune]>=" in message


def test_a_package_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PACKAGES", ("no-such-package",))
    outcome, message = checked("no-such-package")
    assert (outcome, message.partition(";")[0]) == ("problem", "not installed")


def test_a_storage_that_cannot_be_written(folder: Path) -> None:
    (folder / "file").write_text("")
    outcome, message = checked("storage", "file/inside")
    assert outcome == "problem"
    assert message.endswith("choose another --storage")
    # MLflow's database would be in it.
    outcome, message = checked("tracking", "file/inside")
    assert outcome == "problem"
    assert "is in the storage, which cannot be used" in message


def test_a_storage_that_is_away_is_waited_for_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def lost(storage: str) -> Any:
        raise StorageLostError(f"{storage}: does not answer", "try again")

    asked: list[str | None] = []
    monkeypatch.setattr(Store, "check_writable", lambda store: lost(store.address))
    monkeypatch.setattr(
        doctor, "check_cluster", lambda _, storage, paths: asked.append(storage) or []
    )
    found = {one.name: one for one in run_checks("s3://b/x")}
    assert (found["storage"].outcome, found["storage"].message) == (
        "problem",
        "s3://b/x: does not answer; try again",
    )
    assert asked == [None]  # so that no node is asked for it
    assert found["tracking"].outcome == "ok"  # its database is not there, but here


def test_a_disk_that_is_nearly_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LITTLE_DISK", 1 << 60)
    outcome, message = checked("storage")
    assert outcome == "warning"
    assert "make room, or choose another --storage" in message


def test_a_temporary_folder_with_a_long_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = folder / ("x" * 40)
    long.mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(long))
    outcome, message = checked("temporary files")
    assert outcome == "problem"
    assert message.endswith("set RAY_TMPDIR=/tmp")


def test_the_hub_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", "1")
    assert checked("encoders")[1].startswith("offline: only 'tiny', folders, and what ")


# --- tracking ---------------------------------------------------------------------------------


def test_sqlite(folder: Path) -> None:
    assert check_tracking(f"sqlite:///{folder}/new/mlflow.db")[0] == "ok"
    with closing(sqlite3.connect(folder / "right.db")) as database:
        database.execute("CREATE TABLE runs (id)")
    assert check_tracking(f"sqlite:///{folder}/right.db") == (
        "ok",
        f"{folder}/right.db: can be written",
    )
    (folder / "wrong.db").write_bytes(b"not a database" * 99)
    outcome, message = check_tracking(f"sqlite:///{folder}/wrong.db")
    assert (outcome, "file is not a database" in message) == ("problem", True)
    assert check_tracking(f"sqlite:///{folder}/wrong.db/mlflow.db")[0] == "problem"
    assert sorted(path.name for path in folder.iterdir()) == ["right.db", "wrong.db"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_sqlite_in_a_folder_that_cannot_be_written(folder: Path) -> None:
    folder.chmod(0o500)
    assert check_tracking(f"sqlite:///{folder}/mlflow.db")[0] == "problem"
    folder.chmod(0o700)


@pytest.mark.parametrize(
    ("status", "body", "outcome", "words"),
    [
        (200, b'{"experiments": []}', "ok", ": answers"),
        (401, b"who are you?", "problem", "401"),
        (404, b"<html>not here</html>", "problem", "404"),
        (200, b"<html>a router</html>", "problem", "does not answer as MLflow does: "),
    ],
)
def test_a_server(
    serve: Callable[..., str], status: int, body: bytes, outcome: str, words: str
) -> None:
    found = check_tracking(serve(status, body))
    assert found[0] == outcome
    assert words in found[1]
    assert "hunter2" not in found[1]


def test_a_database_that_does_not_answer(closed_port: int) -> None:
    uri = f"postgresql://ann:hunter2@127.0.0.1:{closed_port}/mlflow"
    outcome, message = check_tracking(uri)
    assert outcome == "problem"
    assert message.startswith(f"postgresql://***@127.0.0.1:{closed_port}/mlflow: does not answer: ")


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("ftp://a:hunter2@h", "ftp://***@h: not an address that MLflow takes; give sqlite:///FILE"),
        ("sqlite:///:memory:", "sqlite:///:memory:: in memory, so that it is lost with this"),
    ],
)
def test_what_is_no_store(uri: str, message: str) -> None:
    outcome, found = check_tracking(uri)
    assert (outcome, found[: len(message)]) == ("problem", message)


@pytest.mark.parametrize(
    ("revision", "outcome", "words"),
    [
        ("acf3f17fdcc7", "problem", "older than .* give --migrate-tracking"),
        ("ffffffffffff", "problem", "knows those up to .*; install the MLflow that made it"),
        (None, "ok", "can be written, MLflow's schema"),
    ],
)
def test_the_schema_of_a_database(
    folder: Path, revision: str | None, outcome: str, words: str
) -> None:
    from tune.tracking.schema import _revisions

    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        database.execute("CREATE TABLE alembic_version (version_num VARCHAR(32))")
        row = (revision or _revisions()[0],)
        database.execute("INSERT INTO alembic_version VALUES (?)", row)
        database.commit()
    found = check_tracking(f"sqlite:///{folder}/mlflow.db")
    assert found[0] == outcome
    assert re.search(words, found[1])


# --- Ray --------------------------------------------------------------------------------------


def clusters(
    address: str | None, *paths: str, storage: str | None = "results"
) -> dict[str, tuple[str, str]]:
    return dict(check_cluster(address, storage, paths))


def test_without_an_address_ray_is_not_started() -> None:
    outcome, message = clusters(None)["cluster"]
    assert (outcome, "starts Ray on this machine" in message) == ("ok", True)


def test_a_cluster_that_is_away(closed_port: int, folder: Path) -> None:
    outcome, message = clusters(f"127.0.0.1:{closed_port}")["cluster"]
    assert outcome == "problem"
    assert message.endswith(
        "Connection refused; start Ray there, or give no address to use this machine"
    )
    assert list(folder.iterdir()) == []


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_a_real_cluster(folder: Path) -> None:
    import ray

    from tune.cluster import ray_cluster

    with ray_cluster():
        has = ray.cluster_resources()
        found = clusters(ray.get_runtime_context().gcs_address, str(folder), "away.parquet")
        without = clusters(ray.get_runtime_context().gcs_address, storage=None)
    assert (without["cluster"], without["nodes"]) == (
        found["cluster"],
        ("problem", "not asked, as the storage cannot be used"),
    )
    assert found["cluster"] == (
        "ok",
        f"1 node, {has['CPU']:g} CPU, {has.get('GPU', 0):g} GPU",
    )
    outcome, message = found[f"node {socket.gethostname()}"]
    assert outcome == "problem"
    assert f"{has['CPU']:g} CPU" in message
    assert ": does not have away.parquet; put it where every node has it" in message
    assert list(folder.iterdir()) == []


# --- devices ----------------------------------------------------------------------------------


@pytest.fixture
def check_devices(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, str | None], tuple[str, str]]:
    """What is said of a machine with so many GPUs, and NVIDIA's tool where there is one."""
    import torch

    def run(num_gpus: int, tool: str | None) -> tuple[str, str]:
        device = SimpleNamespace(name="NVIDIA H200", total_memory=139 << 30)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: num_gpus)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: device)
        monkeypatch.setattr("shutil.which", lambda name: tool)
        return CHECK_DEVICES()

    return run


def test_devices(check_devices: Callable[[int, str | None], tuple[str, str]]) -> None:
    outcome, message = check_devices(2, "/usr/bin/nvidia-smi")
    gpus = "GPU 0: NVIDIA H200, 139.0 GiB, GPU 1: NVIDIA H200, 139.0 GiB"
    assert (outcome, message.partition(" CPU cores, ")[2]) == ("ok", gpus)
    assert check_devices(0, None)[0] == "ok"
    outcome, message = check_devices(0, "/usr/bin/nvidia-smi")
    assert outcome == "warning"
    assert message.endswith("install torch for CUDA, or look at CUDA_VISIBLE_DEVICES")
