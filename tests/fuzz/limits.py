"""What holds for any input: it is taken, or refused in one line of ours, within bounds."""

from __future__ import annotations

import contextlib
import io
import os
import re
import resource
import signal
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path

from hypothesis import event, settings

from magtkd.cli import complain
from magtkd.errors import MagtkdError

SECONDS = 2.0
"""Of CPU time, as the machine may be busy."""
MEBIBYTES = 500
CHARACTERS = 1000

_WISHED = os.environ.get("MAGTKD_FUZZ_EXAMPLES")
# The ordinary suite draws the same examples each time; `make fuzz` draws others in each run.
FUZZ = settings(max_examples=int(_WISHED or 200), derandomize=_WISHED is None)


def is_taken(call: Callable[[], object], folder: Path) -> bool:
    """Whether a call took its input. Where it refused that, nothing was written below `folder`."""
    before, refusal = _contents(folder), None
    size = _reset_peak()
    start = time.process_time()
    with _bounded():
        try:
            call()
        except MagtkdError as error:
            refusal = error
    assert time.process_time() - start < SECONDS
    assert _mebibytes("VmHWM") - size < MEBIBYTES
    event("taken" if refusal is None else "refused")  # see --hypothesis-show-statistics
    if refusal is None:
        return True
    with contextlib.redirect_stderr(io.StringIO()) as stderr:
        complain(refusal, refusal.exit_code)
    line = stderr.getvalue()
    assert re.fullmatch(r"magtkd: .*\n", line)
    assert line[:-1].isprintable(), line
    assert len(line) <= CHARACTERS, line
    assert _contents(folder) == before
    return False


@contextlib.contextmanager
def _bounded() -> Iterator[None]:
    """Raise where the block takes too long; where it takes far too much memory, let it run out."""
    before = signal.signal(signal.SIGPROF, _too_long)
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = int(_mebibytes("VmData") + 3 * MEBIBYTES) << 20
    resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _too_long(number: int, frame: types.FrameType | None) -> None:
    raise AssertionError(f"more than {SECONDS} seconds of CPU time")


def _reset_peak() -> float:
    """Let the peak of this process's memory begin anew; its memory now, in MiB."""
    Path("/proc/self/clear_refs").write_text("5")
    return _mebibytes("VmRSS")


def _mebibytes(name: str) -> float:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def _contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
