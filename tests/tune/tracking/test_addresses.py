"""Addresses lead to the right store, and show no credentials."""

from __future__ import annotations

from pathlib import Path

import pytest

from tune.tracking.addresses import default_tracking_uri, reason, redact


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://ann:pa/ss@host:5000/x", "https://***@host:5000/x"),
        (
            "postgresql+psycopg2://u:p@h/db?sslkey=k&a=b",
            "postgresql+psycopg2://***@h/db?sslkey=***&a=b",
        ),
        ("at 'http://ann:it's@host/': away", "at 'http://***@host/': away"),
        ("'http://ann:pa'ss@host/'", "'http://***@host/'"),
        ("GET http://h/?Access_Token=abc: refused", "GET http://h/?Access_Token=*** refused"),
        ("sqlite:////home/me@work/mlflow.db", "sqlite:////home/me@work/mlflow.db"),
    ],
)
def test_credentials_are_not_shown(text: str, shown: str) -> None:
    assert redact(text) == shown


def test_the_default_address_is_in_the_storage_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert default_tracking_uri(tmp_path) == f"sqlite:///{tmp_path.resolve()}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000")
    assert default_tracking_uri(tmp_path) == "http://host:5000"


def test_a_reason_is_what_the_system_said_at_the_root() -> None:
    error = RuntimeError("away\nand a long story")
    assert reason(error) == "away"
    error.__cause__ = ConnectionRefusedError(111, "Connection refused")
    assert reason(error) == "Connection refused"
    assert reason(KeyError()) == "KeyError"
