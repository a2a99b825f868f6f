"""What an address may be, and how one that cannot be joined is refused."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from magtkd.errors import SweepError
from tune.cluster import address as module
from tune.cluster import find_cluster, ray_cluster
from tune.cluster.address import keep_token_private


def refusal(address: str) -> str:
    with pytest.raises(SweepError, match=r"^--address ") as caught:
        find_cluster(address, lambda line: None)
    line = str(caught.value)
    assert "\n" not in line
    return line


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with closing(socket.socket()) as made:
        made.bind(("127.0.0.1", 0))
        yield made


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("ray://127.0.0.1:10001", "Ray's client would run the search on another machine; start"),
        ("127.0.0.1", "not an address; give HOST:PORT, or auto"),
        (":6379", "not an address; give HOST:PORT, or auto"),
        ("127.0.0.1:port", "not an address; give HOST:PORT, or auto"),
        ("127.0.0.1:65536", "not an address; give HOST:PORT, or auto"),
        ("nowhere.invalid:6379", "cannot be reached: "),
    ],
)
def test_what_is_not_an_address(address: str, message: str) -> None:
    assert message in refusal(address)


def test_a_long_address_is_cut() -> None:
    assert len(refusal("x" * 500)) < 250


def test_where_nothing_listens(listener: socket.socket) -> None:
    assert ": Connection refused; start Ray there, or give no address" in refusal(place(listener))


def test_where_something_else_listens(listener: socket.socket) -> None:
    """It takes the connection, and never answers."""
    listener.listen()
    assert "does not answer as Ray does; give the port that" in refusal(place(listener))


def place(listener: socket.socket) -> str:
    return f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize(
    ("ray_there", "python_there", "message"),
    [("1.0.0", None, "has Ray 1.0.0, and this"), (None, "3.2.1", "has Python 3.2.1, and this")],
)
def test_other_versions(ray_there: str | None, python_there: str | None, message: str) -> None:
    with pytest.raises(SweepError, match=message):
        module._check_versions("h1:6379", ray_there, python_there)


def test_a_token_file_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    keep_token_private()  # there is none
    token = tmp_path / ".ray" / "auth_token"
    token.parent.mkdir()
    token.write_text("0" * 64)
    token.chmod(0o644)
    keep_token_private()
    assert token.stat().st_mode & 0o777 == 0o600


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_the_token_of_a_real_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A local Ray asks for a token; none, or another one, is refused with where Ray looks."""
    import ray

    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    with ray_cluster():
        address = ray.get_runtime_context().gcs_address
        mode = os.environ["RAY_AUTH_MODE"]
        assert find_cluster(address, lambda line: None) == module.RunningCluster(address, mode)
        assert mode == "token"
        monkeypatch.setenv("HOME", str(tmp_path))
        assert "asks for a token; copy ~/.ray/auth_token from where" in refusal(address)
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "away"))
        away = f"and RAY_AUTH_TOKEN_PATH names no file, but {tmp_path}/away; copy"
        assert away in refusal(address)
        (tmp_path / "away").write_text("0" * 64)
        other = f"does not accept the token in {tmp_path}/away, which RAY_AUTH_TOKEN_PATH names"
        assert other in refusal(address)
        monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
        assert "does not accept the token in RAY_AUTH_TOKEN; copy" in refusal(address)
