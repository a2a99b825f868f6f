"""Why Ray does not start on this machine, in one line, whatever it raises."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from magtkd.errors import MagtkdError, RayLostError, SweepError, shorten
from tune.cluster import ray_cluster, start

TIMED_OUT = "The current node timed out during startup. This could happen because\nof much"


@pytest.fixture
def raised(monkeypatch: pytest.MonkeyPatch) -> list[Exception]:
    """What `ray.init` raises, one after another; then it succeeds."""
    errors: list[Exception] = []

    def init(**options: object) -> None:
        if errors:
            raise errors.pop(0)

    monkeypatch.setattr("ray.init", init)
    monkeypatch.setattr(start, "_scarce", list)
    return errors


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (Exception(TIMED_OUT), RayLostError, r"The current node timed out .*; try again when"),
        (RuntimeError("Timed out waiting for file x"), RayLostError, "waiting for file x; try aga"),
        (OSError(24, "Too many open files"), SweepError, "Too many open files; look at Ray's logs"),
        (OSError("AF_UNIX path length cannot exceed 107 bytes: /x"), SweepError, "AF_UNIX path"),
        (OSError(28, "No space left on device"), SweepError, "No space left on device; look"),
        (ValueError("Attempting to cap object store memory"), SweepError, "object store memory"),
        (MemoryError(), SweepError, "MemoryError; look"),
        (AssertionError(), SweepError, "AssertionError; look"),
    ],
)
def test_whatever_it_raises_is_one_line(
    raised: list[Exception], error: Exception, kind: type[MagtkdError], message: str
) -> None:
    raised += [error, error]
    noted: list[str] = []
    with pytest.raises(kind, match=f"^Ray: did not start here: .*{message}") as one:
        start.start_here({}, noted.append)
    assert "\n" not in str(one.value)
    # Only what a busy machine may be the reason of is tried again.
    assert len(raised) == (kind is SweepError) == (not noted)


def test_a_second_try_may_succeed(raised: list[Exception]) -> None:
    raised.append(Exception(TIMED_OUT))
    noted: list[str] = []
    start.start_here({}, noted.append)
    assert [line.rpartition("; ")[2] for line in noted] == ["trying once more"]


def test_what_the_machine_lacks_is_named(
    raised: list[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()

    def init(**options: object) -> None:
        raise Exception(TIMED_OUT)

    monkeypatch.setattr("ray.init", init)
    limits = {resource.RLIMIT_NOFILE: (40, 40), resource.RLIMIT_AS: (6 << 30, 6 << 30)}
    monkeypatch.setattr(start.resource, "getrlimit", limits.__getitem__)
    memory = psutil.virtual_memory()._replace(available=77 << 20)
    monkeypatch.setattr(start.psutil, "virtual_memory", lambda: memory)
    monkeypatch.setattr(start, "LEAST_DISK_BYTES", 1 << 60)
    message = (
        r"timed out .*; only 40 files may be open at a time \(ulimit -n\), of 256; a process may "
        r"have only 6.0 GiB of addresses \(ulimit -v\); only 77 MiB of memory are free; /tmp has "
        r"only \d+ MiB free; /dev/shm has only \d+ MiB free; allow it more, or look at Ray"
    )
    monkeypatch.delenv("TMPDIR", raising=False)
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    with pytest.raises(RayLostError, match=message):
        start.start_here({}, print)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("x" * 60, r"too long for Ray's sockets \(\d+ characters, and 39 fit\); set RAY_TMPDIR=/t"),
        ("file", r"file: cannot be written; set RAY_TMPDIR=/tmp, or to another"),
    ],
)
def test_a_folder_that_ray_cannot_use_is_refused_before_it_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    place = tmp_path
    if name == "file":
        monkeypatch.chdir(tmp_path)
        place = Path()
        (place / name).write_text("")
    monkeypatch.setenv("RAY_TMPDIR", str(place / name))
    with pytest.raises(SweepError, match=f"^Ray: .*{message}"), ray_cluster("local"):
        pass


def test_a_command_ends_with_one_line(tmp_path: Path) -> None:
    """And nothing was written."""
    (tmp_path / "toy.yaml").write_text(
        "data: {synthetic: {num_dialogues: 11, mean_length: 3}}\n"
        "space: {fusion.dropout: {float: [0.1, 0.5]}}\n"
    )
    long = tmp_path / ("x" * 60)
    code = "import sys; from tune.cli import main; sys.argv[0] = 'magtkd'; main()"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, "sweep", "toy.yaml"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "TMPDIR": str(long)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith(f"magtkd: Ray: {shorten(str(long))}: too long for Ray's sockets")
    assert [path.name for path in tmp_path.iterdir()] == ["toy.yaml"]
