from __future__ import annotations

import asyncio
import os
from pathlib import Path

from magtkd.store import Store, is_locked, take_lock
from tune.engine.claims import claim, remove_free_claims


def test_of_two_who_claim_a_stage_the_second_waits(tmp_path: Path) -> None:
    order: list[str] = []

    async def train(name: str) -> None:
        release = await claim(Store(tmp_path), "teacher", "aa", lambda: order.append("waits"))
        order.append(f"{name} begins")
        await asyncio.sleep(0.05)
        order.append(f"{name} ends")
        release()

    async def both() -> None:
        await asyncio.gather(train("one"), train("two"))

    asyncio.run(asyncio.wait_for(both(), 10))
    assert order[0] == "one begins"
    assert order[1:3] == ["waits", "one ends"]
    assert order[3:] == ["two begins", "two ends"]
    assert list((tmp_path / "locks").iterdir()) == []


def test_other_stages_and_stores_without_locks_wait_for_nobody(tmp_path: Path) -> None:
    async def all_at_once() -> None:
        store, remote = Store(tmp_path), Store("mock://bucket/results")
        for place, stage, key in (
            (store, "teacher", "aa"),
            (store, "teacher", "bb"),
            (store, "audio", "aa"),
            (remote, "teacher", "aa"),
            (remote, "teacher", "aa"),
        ):
            await claim(place, stage, key)

    asyncio.run(asyncio.wait_for(all_at_once(), 5))


def test_where_no_lock_can_be_made_nobody_waits(tmp_path: Path) -> None:
    (tmp_path / "locks").write_text("in the way")
    release = asyncio.run(asyncio.wait_for(claim(Store(tmp_path), "teacher", "aa"), 5))
    release()


def test_files_of_dead_claims_go_and_those_that_are_held_stay(tmp_path: Path) -> None:
    held = take_lock(tmp_path / "locks/teacher-aa.lock")
    assert held is not None
    (tmp_path / "locks/audio-bb.lock").write_text("process 1 on a machine that is gone")
    remove_free_claims(Store(tmp_path))
    assert [path.name for path in (tmp_path / "locks").iterdir()] == ["teacher-aa.lock"]
    assert is_locked(tmp_path / "locks/teacher-aa.lock")
    os.close(held)
