"""Which nodes a sweep waits for, and which it refuses to work on."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from ray._private import worker

from magtkd.errors import ResumableError, SweepError
from magtkd.store import Store
from tune.cluster import (
    Need,
    Node,
    NodeReport,
    Shape,
    check_nodes,
    live_nodes,
    ray_cluster,
    shared_token,
    wait_for_nodes,
)
from tune.cluster import checks as module

ROOT = Path(__file__).parents[3]
ONE_CPU = Shape((("CPU", 1.0),))
MANY_CPUS = Shape((("CPU", 5000.0),))
NODE = Node(id="1", name="h2", address="10.0.0.2", totals={"CPU": 1.0})
OWN = {name: version(name) for name in ("magtkd", "ray", "torch")}
on_ray = [
    pytest.mark.ray,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def one_node() -> Iterator[Node]:
    with ray_cluster():
        (node,) = live_nodes()
        yield node


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "storage")


def lines(store: Store, token: str, *needs: Need) -> list[str]:
    return check_nodes(store, token, needs, {ONE_CPU}, ship_code=False)


class TestOnRay:
    pytestmark = on_ray

    def test_a_node_that_has_all(self, one_node: Node, store: Store, tmp_path: Path) -> None:
        need = Need(stage="audio_media", shape=ONE_CPU, name="data.media", path=str(tmp_path))
        with shared_token(store, "mosi") as token:
            assert lines(store, token, need) == []

    def test_a_node_without_the_clips(self, one_node: Node, store: Store, tmp_path: Path) -> None:
        away = str(tmp_path / "clips")
        need = Need(stage="audio_media", shape=ONE_CPU, name="data.media", path=away)
        message = (
            rf"node {one_node.name} \(.*\): does not have data.media {away}, which audio_media "
            "reads; put it where every node has it"
        )
        with shared_token(store, "mosi") as token:
            with pytest.raises(SweepError, match=message):
                lines(store, token, need)
            elsewhere = Need(stage="audio_media", shape=MANY_CPUS, name="data.media", path=away)
            assert lines(store, token, elsewhere) == []

    def test_a_node_without_the_storage(self, one_node: Node, store: Store) -> None:
        message = rf"node {one_node.name} \(.*\): does not see the storage {store.address}: it has"
        with pytest.raises(SweepError, match=message):
            lines(store, "shared/away")
        # A node that gets no work need not see it.
        assert check_nodes(store, "shared/away", (), {MANY_CPUS}, ship_code=False) == []

    def test_nodes_that_are_there_are_not_waited_for(self, one_node: Node) -> None:
        notes: list[str] = []
        wait_for_nodes(1, 0, notes.append)
        assert notes == []

    def test_nodes_that_do_not_come(self, one_node: Node) -> None:
        notes: list[str] = []
        with pytest.raises(ResumableError, match=r"--wait-nodes 2: 1 of 2 nodes are alive"):
            wait_for_nodes(2, 0.2, notes.append)
        assert notes == ["waiting for nodes: 1 of 2 are alive; 0 s left"]

    def test_what_nodes_push_to_drivers_is_not_shown(
        self, one_node: Node, capsys: pytest.CaptureFixture[str]
    ) -> None:
        pushed = {"lines": ["66 PYTHON worker processes"], "pid": "raylet", "is_err": False}
        worker.print_to_stdstream(pushed, ignore_prefix=False)
        assert capsys.readouterr() == ("", "")


def report(python: str, packages: dict[str, str]) -> NodeReport:
    return NodeReport(
        host="h2", node_id="1", python=python, packages=packages, storage_problem=None, absent=()
    )


@pytest.mark.parametrize(
    ("python", "packages", "message"),
    [
        ("3.2.1", OWN, "has Python 3.2.1, and this machine"),
        (platform.python_version(), OWN | {"ray": "1.0"}, "has ray 1.0, and this machine"),
        (platform.python_version(), {"ray": OWN["ray"]}, "has magtkd none, and this machine"),
    ],
)
def test_versions_that_are_refused(python: str, packages: dict[str, str], message: str) -> None:
    with pytest.raises(SweepError, match=rf"node h2 \(10.0.0.2\): {message}"):
        module._compare_versions(NODE, report(python, packages), ship_code=False)


def test_versions_that_may_differ() -> None:
    other = report(platform.python_version(), OWN | {"torch": "1.0", "magtkd": "0.0"})
    found = module._compare_versions(NODE, other, ship_code=False)
    assert [line.split(":")[1].split(",")[0] for line in found] == [
        " has magtkd 0.0",
        " has torch 1.0",
    ]
    assert len(module._compare_versions(NODE, other, ship_code=True)) == 1


@pytest.mark.parametrize("module", ["tune.py", "magtkd.py"])
def test_a_driver_that_imports_something_else_does_not_start(tmp_path: Path, module: str) -> None:
    """As with `python -m`, which puts the working directory first: nothing of ours runs."""
    (tmp_path / module).write_text("")
    done = subprocess.run(
        [sys.executable, "-m", "tune.cli", "--version"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert module.removesuffix(".py") in done.stderr


def test_the_token_is_gone_at_the_end(store: Store, tmp_path: Path) -> None:
    with shared_token(store, "mosi") as name:
        assert store.read_file(name) == b""
    assert list(tmp_path.iterdir()) == []


def test_a_driver_that_was_killed_left_its_token(store: Store) -> None:
    store.write_file("shared/mosi-1", b"")
    store.write_file("shared/mosi-2-1", b"")  # the sweep `mosi-2`'s
    with shared_token(store, "mosi") as name:
        assert store.list_files("shared") == sorted([name.removeprefix("shared/"), "mosi-2-1"])


@pytest.mark.ray
@pytest.mark.parametrize("path", ["", f"import sys; sys.path += [{str(ROOT)!r}, '']\n"])
def test_workers_import_what_the_driver_imports(tmp_path: Path, path: str) -> None:
    """Also where the working directory has modules of the same names: one that is not on the
    driver's path, as with the installed command, or that is its last folder."""
    for name in ("tune.py", "magtkd.py"):
        (tmp_path / name).write_text("raise RuntimeError('the wrong one')\n")
    code = path + (
        "import ray; from tune.cluster import ray_cluster, report_node\n"
        "with ray_cluster():\n"
        "    print(ray.get(ray.remote(report_node).remote('.', 'token', ())).host)\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, platform.node()), done.stderr
