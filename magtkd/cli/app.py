"""What all of the command line shares: how an application is made, run, and complains."""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from magtkd.errors import InputError, MagtkdError

__all__ = ["EXIT_CODES", "complain", "examples", "new_app", "run_app", "warn", "write_text"]


EXIT_CODES = (
    "Exit codes: 0 done, for a sweep with a completed trial; 1 nothing came of it; 2 wrong input; "
    "75 a fault that may be gone later: run it again, a sweep with --resume; 130 interrupted, "
    "likewise."
)


def examples(*commands: str) -> str:
    """The end of a command's help."""
    lines = [f"[dim]{command.replace('[', chr(92) + '[')}[/dim]" for command in commands]
    return "\n\n".join(["Examples:" if len(commands) > 1 else "Example:", *lines])


def new_app() -> typer.Typer:
    """An application without commands, with `--version`."""
    app = typer.Typer(
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        help="Train MAGTKD and search its hyperparameters.",
        epilog=examples("magtkd sweep experiments/quickstart_sweep.yaml", "magtkd sweep --help")
        + "\n\n"
        + EXIT_CODES,
    )

    app.callback()(_root)
    return app


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"magtkd {importlib.metadata.version('magtkd')}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass


def run_app(application: typer.Typer, arguments: list[str] | None = None) -> int:
    """Run a command line; one line on stderr for whatever ends it before its time.

    Returns:
        the exit code: 0 done, or a sweep with a completed trial; 1 nothing came of it; 2 wrong
        input; 75 a fault that may be gone later, when the same command or `--resume` continues; 130
        interrupted, likewise.
    """
    # Python has none where they are closed.
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, _nowhere())
    try:
        with _interrupted_by(signal.SIGTERM, signal.SIGUSR1):
            code = application(args=arguments, standalone_mode=False)
        sys.stdout.flush()
    except MagtkdError as error:
        return complain(error, error.exit_code)
    except OSError as error:
        return _complain_of_system(error)
    except Exception as error:
        # Typer's and click's own complaints about arguments, which know how to show themselves.
        if not hasattr(error, "format_message"):
            raise
        message = error.format_message().rstrip(".")
        # Without a message, the help itself was shown.
        return complain(f"{message}; see `{_command(error)} --help`", 2) if message else 2
    # Typer returns the exit code of `typer.Exit`, and 130 after Ctrl-C.
    return code if isinstance(code, int) else 0


def _nowhere() -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="replace")


def _complain_of_system(error: OSError) -> int:
    """What the machine refused, such as output to a disk that is full, in one line."""
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    if error.filename is None:
        # What could not be written is tried again, and complained about, when Python ends.
        sys.stdout = _nowhere()
    place = error.filename or "the output"
    reason = error.strerror or str(error)
    return complain(f"{place}: {reason}; run it again where that is possible", 1)


@contextlib.contextmanager
def _interrupted_by(*numbers: signal.Signals) -> Iterator[None]:
    """These signals do what Ctrl-C does, unless the block handles them itself."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # one that Python did not set
                signal.signal(number, handler)


def complain(message: object, code: int) -> int:
    """One line on stderr; returns the exit code."""
    print(f"magtkd: {_one_line(str(message))}", file=sys.stderr)
    return code


def warn(message: str) -> None:
    """A warning on stderr."""
    print(f"magtkd: warning: {_one_line(message)}", file=sys.stderr)


def _one_line(message: str) -> str:
    """A message without line breaks, and with escapes for what a terminal would obey or not show:
    it may have names and values from a file in it."""
    line = " ".join(message.split())
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in line)


def _command(error: Exception) -> str:
    """The command that a complaint about arguments is about, such as `magtkd data convert`."""
    names: list[str] = []
    context = getattr(error, "ctx", None)
    while context is not None and context.parent is not None:
        names.insert(0, context.info_name or "")
        context = context.parent
    return " ".join(["magtkd", *names])


def write_text(path: Path, text: str) -> None:
    """Replace a file in one step, so that what was there stays whole if writing fails.

    Raises:
        InputError: the file cannot be written.
    """
    if os.path.isdir(path):
        raise InputError(f"{path}: cannot write: it is a folder; name a file in it")
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise InputError(f"{path}: cannot write: {error.strerror}; choose another file") from None
