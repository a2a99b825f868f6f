"""Addresses and errors show no credentials."""

from __future__ import annotations

import pytest

from tune.redact import reason, redact


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


def test_a_reason_is_the_system_s_own_at_the_root() -> None:
    error = RuntimeError("away\nand a long story")
    assert reason(error) == "away"
    error.__cause__ = ConnectionRefusedError(111, "Connection refused")
    assert reason(error) == "Connection refused"
    assert reason(KeyError()) == "KeyError"
    error = RuntimeError("no answer from " + "x" * 300)
    assert len(reason(error)) == 200
    error.__cause__ = ValueError("too many 500 error responses")
    assert reason(error) == "too many 500 error responses"
