"""Which stages may begin within a budget."""

from __future__ import annotations

import asyncio

import pytest

from tune.engine import gate as gate_module
from tune.engine.gate import Allowance, Gate

EXPECTED = {"long": 100.0, "short": 10.0}


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_without_a_budget_all_may() -> None:
    gate = Gate()
    assert gate.begin("a", "long")
    gate.allow(Allowance(expected=EXPECTED))
    assert gate.begin("b", "long")


def test_the_wall_clock_runs_on_after_it_was_told() -> None:
    clock = Clock()
    gate = Gate(clock)
    gate.allow(Allowance(seconds=100.0, expected=EXPECTED))
    assert gate.begin("a", "long")
    clock.seconds += 1
    assert not gate.begin("b", "long")
    assert gate.begin("b", "short")
    assert gate.begin("c", "of which nothing is known")
    clock.seconds += 90
    assert not gate.begin("d", "short")


def test_what_is_in_training_has_its_part() -> None:
    gate = Gate()
    gate.allow(Allowance(stage_seconds=115.0, expected=EXPECTED))
    assert gate.begin("a", "long")
    assert gate.begin("a", "long")  # once more, where its worker died
    assert gate.begin("b", "short")
    assert not gate.begin("c", "short")
    gate.end("b")
    assert gate.begin("c", "short")
    gate.end("c")
    gate.end("c")
    assert gate.begin("d", "short")


def test_who_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_module, "LOOK_SECONDS", 0.001)
    said: list[str] = []

    async def check() -> None:
        gate = Gate()
        gate.allow(Allowance(stage_seconds=105.0, expected=EXPECTED))
        await gate.wait("long", lambda: said.append("not at all"))
        assert gate.begin("a", "long")
        waiting = asyncio.create_task(gate.wait("short", lambda: said.append("short")))
        await asyncio.sleep(0.01)
        assert (said, waiting.done(), gate.holds_all) == (["short"], False, False)
        gate.allow(Allowance(stage_seconds=5.0, expected=EXPECTED))
        gate.end("a")
        await asyncio.sleep(0.01)
        assert (waiting.done(), gate.holds_all) == (False, True)
        gate.allow(Allowance(stage_seconds=10.0, expected=EXPECTED))
        await asyncio.wait_for(waiting, 5)
        assert not gate.holds_all
        gate.allow(Allowance(stage_seconds=5.0, expected=EXPECTED))
        given_up = asyncio.create_task(gate.wait("short", lambda: None))
        await asyncio.sleep(0.01)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError, match=r"^$"):
            await given_up
        assert not gate.holds_all

    asyncio.run(check())
