"""What the machine does to a command line: one line, and a documented exit code."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import typer

from magtkd.cli import new_app, run_app
from magtkd.errors import InputError


def app_of(*lines: str, error: Exception | None = None) -> typer.Typer:
    app = new_app()

    def show() -> None:
        for line in lines:
            print(line)
        if error is not None:
            raise error

    app.command("show")(show)
    app.command("other")(lambda: None)
    return app


@pytest.mark.parametrize("num_lines", [1, 10_000])
def test_output_to_a_full_disk_is_one_line(
    num_lines: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert run_app(app_of(*["a line"] * num_lines), ["show"]) == 1
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())  # what is left in its buffer
    assert capsys.readouterr().err == (
        "magtkd: the output: No space left on device; run it again where that is possible\n"
    )


def test_closed_output_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert run_app(app_of("a line"), ["show"]) == 0


def test_what_the_machine_refuses_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = PermissionError(13, "Permission denied", str(tmp_path))
    assert run_app(app_of("a line", error=error), ["show"]) == 1
    out, err = capsys.readouterr()
    assert out == "a line\n"
    assert err == f"magtkd: {tmp_path}: Permission denied; run it again where that is possible\n"


def test_a_message_is_one_line_that_a_terminal_does_not_obey(
    capsys: pytest.CaptureFixture[str],
) -> None:
    error = InputError("héé\n'\x1b[2J\u2028\ud83d'\x00: no such key", "correct\tit")
    assert run_app(app_of(error=error), ["show"]) == 2
    assert capsys.readouterr().err == (
        "magtkd: héé '\\x1b[2J \\ud83d'\\x00: no such key; correct it\n"
    )
