"""The ledger in an object store: parts, series, and the owner."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magtkd.errors import OwnerLostError, SweepError
from magtkd.store import Files
from tune.ledger import SweepLayout, owner
from tune.ledger.owner import OwnerFile
from tune.ledger.remote import MAX_PARTS, RemoteLedger, Series

LAYOUT = SweepLayout(Path("here"), "mosi", "mock://store")
FOLDER = "sweeps/mosi/ledger"
lines = st.binary(min_size=1, max_size=40).map(lambda text: text.replace(b"\n", b"") + b"\n")


def objects() -> Files:
    """Objects in memory, which are this value's alone."""
    return Files("mock://store")


def written(files: Files, contents: list[bytes], series: Series) -> RemoteLedger:
    ledger = RemoteLedger(LAYOUT, files)
    ledger.begin(series)
    whole = b""
    for content in contents:
        whole += content
        ledger.write(content)
        ledger.merge(lambda first, end, whole=whole: whole[first:end])
    return ledger


@given(st.lists(lines, min_size=1, max_size=150))
def test_a_ledger_is_read_as_it_was_written_and_has_few_parts(contents: list[bytes]) -> None:
    files = objects()
    written(files, contents, Series(1, "a" * 8))
    reader = RemoteLedger(LAYOUT, files)
    assert reader.read() == b"".join(contents)
    assert len(files.list_files(FOLDER)) <= MAX_PARTS


@given(st.integers(400, 1500))
def test_merging_writes_each_byte_a_few_times_only(number: int) -> None:
    files, written_bytes = objects(), 0
    write = files.write_file

    def count(name: str, content: bytes) -> None:
        nonlocal written_bytes
        written_bytes += len(content)
        write(name, content)

    files.write_file = count  # type: ignore[method-assign]
    written(files, [b"line\n"] * number, Series(1, "a" * 8))
    assert written_bytes < 12 * 5 * number


@given(st.lists(lines, min_size=1, max_size=9), st.lists(lines, min_size=1, max_size=9))
def test_the_last_driver_s_series_counts_whatever_an_earlier_one_still_writes(
    before: list[bytes], after: list[bytes]
) -> None:
    files = objects()
    sleeper = written(files, before, Series(1, "f" * 8))
    current = written(files, [b"".join(before), *after], Series(2, "a" * 8))
    sleeper.write(b"too late\n")
    assert RemoteLedger(LAYOUT, files).read() == b"".join([*before, *after])
    current.remove_others()
    assert RemoteLedger(LAYOUT, files).read() == b"".join([*before, *after])
    assert all(name.startswith("000002-") for name in files.list_files(FOLDER))


def test_nothing_was_written() -> None:
    ledger = RemoteLedger(LAYOUT, objects())
    assert (ledger.exists(), ledger.last_series(), ledger.read()) == (False, None, b"")


def test_two_drivers_with_one_number_are_refused_and_named() -> None:
    files = objects()
    for driver in ("a" * 8, "b" * 8):
        written(files, [b"line\n"], Series(3, driver))
    with pytest.raises(SweepError, match=r"two drivers wrote it at once, 000003-a{8} and 000003-b"):
        RemoteLedger(LAYOUT, files).read()


def test_a_part_that_is_missing_or_damaged_is_refused() -> None:
    files = objects()
    written(files, [b"one\n", b"two\n", b"three\n"], Series(1, "a" * 8))
    _, second, _ = files.list_files(FOLDER)
    files.write_file(f"{FOLDER}/{second}", b"tw")
    with pytest.raises(SweepError, match=r"is damaged: 2 bytes; restore it from a copy"):
        RemoteLedger(LAYOUT, files).read()
    files.remove_file(f"{FOLDER}/{second}")
    with pytest.raises(SweepError, match=r"a part is missing; restore it from a copy"):
        RemoteLedger(LAYOUT, files).read()


# --- the owner --------------------------------------------------------------------------------


@pytest.fixture
def layouts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[SweepLayout]:
    """Those of two machines, which are impatient."""
    monkeypatch.setattr(owner, "STALE_SECONDS", 2.0)
    monkeypatch.setattr(owner, "SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(owner, "BEAT_SECONDS", 0.2)
    layouts = [SweepLayout(tmp_path / name, "mosi", "mock://store") for name in ("a", "b")]
    for layout in layouts:
        layout.folder.mkdir(parents=True)
    return layouts


def test_a_second_driver_is_refused_while_the_first_is_alive(layouts: list[SweepLayout]) -> None:
    files = objects()
    first, second = (OwnerFile(layout, files) for layout in layouts)
    assert first.take() is None
    is_over = threading.Event()

    def live() -> None:
        while not is_over.wait(0.1):
            first.check()

    thread = threading.Thread(target=live)
    thread.start()
    try:
        found = second.take()
    finally:
        is_over.set()
        thread.join()
    assert found is not None
    assert found.driver == first.driver
    first.release()
    assert second.take() is None


def test_a_dead_driver_is_followed_and_notices_if_it_was_not(layouts: list[SweepLayout]) -> None:
    files = objects()
    first, second = (OwnerFile(layout, files) for layout in layouts)
    assert first.take() is None
    assert second.take() is None
    with pytest.raises(OwnerLostError, match=r"'mosi': process \d+ on .* has taken it over, bec"):
        first.check()
    first.release()  # it is not its any more
    second.check()


def test_a_driver_that_slept_while_it_wrote_does_not_take_the_sweep_back(
    layouts: list[SweepLayout],
) -> None:
    files = objects()
    first, second, third = (OwnerFile(layout, files) for layout in (*layouts, layouts[0]))
    assert first.take() is None
    assert second.take() is None
    first._write()  # of which it was in the middle
    second.check()
    with pytest.raises(OwnerLostError, match="has taken it over"):
        first.check()
    second.check()
    third._write()
    with pytest.raises(OwnerLostError, match="has taken it over"):
        second.check()


def test_on_one_machine_a_dead_driver_is_followed_at_once(layouts: list[SweepLayout]) -> None:
    files, layout = objects(), layouts[0]
    assert OwnerFile(layout, files).take() is None
    started = time.monotonic()
    assert OwnerFile(layout, files).take() is None
    assert time.monotonic() - started < owner.STALE_SECONDS
