"""What tests of commands share."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from magtkd.cli import run_app
from tune.cli import app


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command in this process; gives its exit code and what it wrote to stdout and
    stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        code = run_app(app, list(arguments))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
