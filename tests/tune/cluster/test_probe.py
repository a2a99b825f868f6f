"""What a node reports of itself."""

from __future__ import annotations

import importlib.metadata
import platform
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from magtkd.store import Store
from tune.cluster import report_node


@pytest.fixture
def storage(tmp_path: Path) -> str:
    store = Store(tmp_path / "storage")
    store.write_file("shared/token", b"")
    return store.address


def test_a_node_names_its_host_and_versions(storage: str) -> None:
    report = report_node(storage, "shared/token", ())
    assert report.host == socket.gethostname()
    assert report.python == platform.python_version()
    assert report.packages["ray"] == importlib.metadata.version("ray")
    assert report.packages["magtkd"] == importlib.metadata.version("magtkd")
    assert report.node_id == ""


def test_a_node_with_the_drivers_token_sees_the_storage(storage: str) -> None:
    assert report_node(storage, "shared/token", ()).storage_problem is None


@pytest.mark.parametrize("address", ["", "elsewhere"])
def test_a_node_without_the_drivers_token_does_not(storage: str, address: str) -> None:
    problem = report_node(storage + address, "shared/another", ()).storage_problem
    assert problem == "it has a folder of its own there, or none"


def test_a_storage_that_cannot_be_read_is_named(storage: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    problem = report_node(str(tmp_path / "file"), "shared/token", ()).storage_problem
    assert problem is not None
    assert "directory" in problem


def test_paths_that_are_not_there_are_listed(storage: str, tmp_path: Path) -> None:
    absent, unmounted = str(tmp_path / "clips"), tmp_path / "share"
    unmounted.mkdir()
    paths = (absent, str(unmounted), str(tmp_path), __file__)
    assert report_node(storage, "shared/token", paths).absent == (absent, str(unmounted))


def test_a_report_loads_no_torch() -> None:
    code = (
        "import sys; from tune.cluster import report_node; report_node('.', 'token', ()); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
