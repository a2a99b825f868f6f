from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from magtkd.errors import StorageLostError
from magtkd.store import Checkpoints, Store, checkpoints


@dataclass
class Counter:
    """A session that counts its checkpoints."""

    is_done: bool = False
    count: int = 0

    def checkpoint(self) -> bytes:
        self.count += 1
        return f"checkpoint {self.count}".encode()


@pytest.fixture
def one(tmp_path: Path) -> Checkpoints:
    return Checkpoints(Store(tmp_path), "sweeps/id/7/0")


def files(tmp_path: Path) -> list[Path]:
    return sorted(tmp_path.glob("sessions/sweeps/id/7/0/*"))


def test_the_last_checkpoint_counts_and_those_before_it_are_gone(
    tmp_path: Path, one: Checkpoints
) -> None:
    assert one.load() is None
    for content in (b"first", b"second", b"third"):
        one.save(content)
        assert one.load() == content
        assert len(files(tmp_path)) == 1
    assert Checkpoints(Store(tmp_path), "sweeps/id/7/0").load() == b"third"
    assert Checkpoints(Store(tmp_path), "sweeps/id/7/1").load() is None
    one.remove()
    assert one.load() is None
    one.remove()


@pytest.mark.parametrize("damage", [b"", b"thir", b"thirD", b"third and more"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    tmp_path: Path, one: Checkpoints, damage: bytes
) -> None:
    one.save(b"second")
    (before,) = files(tmp_path)
    kept = before.read_bytes()
    one.save(b"third")
    before.write_bytes(kept)  # as if the driver had been killed before it was removed
    files(tmp_path)[-1].write_bytes(damage)
    assert one.load() == b"second"
    before.unlink()
    assert one.load() is None


def test_files_of_others_are_no_checkpoints(tmp_path: Path, one: Checkpoints) -> None:
    one.save(b"mine")
    files(tmp_path)[0].with_name("notes.txt").write_text("of somebody")
    assert one.load() == b"mine"


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(
    one: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    one.save(b"whole")

    def full(*_: object) -> None:
        raise StorageLostError("no space left")

    monkeypatch.setattr(Store, "write_file", full)
    with pytest.raises(StorageLostError, match="no space left"):
        one.save(b"more")
    assert one.load() == b"whole"
    monkeypatch.setattr(checkpoints, "SECONDS", -1.0)
    one.offer(Counter())  # training continues
    assert one.load() == b"whole"


def test_checkpoints_are_made_when_it_is_time(
    one: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now)
    one = Checkpoints(one._store, "timed")
    session = Counter()
    one.offer(session)
    assert session.count == 0  # nothing that would be a loss was trained yet
    now += checkpoints.SECONDS
    one.offer(session)
    one.offer(session)
    assert session.count == 1
    now += checkpoints.SECONDS
    one.offer(Counter(is_done=True))
    assert one.load() == b"checkpoint 1"
    one.offer(session)
    assert session.count == 2


def test_checkpoints_take_a_small_share_of_the_time(
    one: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: clock[0])

    class Slow(Counter):
        def checkpoint(self) -> bytes:
            clock[0] += 10.0
            return super().checkpoint()

    one, session = Checkpoints(one._store, "slow"), Slow()
    while clock[0] < 3000.0:
        clock[0] += 2.0  # an epoch
        one.offer(session)
    assert 10.0 * session.count <= 3000.0 * checkpoints.SHARE + 10.0
    assert session.count > 10
