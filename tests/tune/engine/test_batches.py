"""How many epochs a worker trains at a time."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magtkd.config import Config
from magtkd.errors import DivergedError
from magtkd.metrics import Report
from magtkd.pipeline import CORE_TRAINER
from magtkd.store import Checkpoints, Store
from tune.cluster import Shape
from tune.engine import Failure, FailureKind, Moved
from tune.engine import worker as worker_module
from tune.engine.worker import Worker, _OpenSession

GPU = Shape((("CPU", 1.0), ("GPU", 1.0)))
"""Without one, a worker hides the GPUs of its process from all that follows."""


class Epochs:
    """A session whose losses are given; it has no last epoch, and None is one that diverges."""

    is_done, seconds = False, 0.0

    def __init__(self, losses: list[float | None]) -> None:
        self.epoch, self._losses = 0, losses

    def advance(self) -> Report:
        loss = self._losses[self.epoch]
        if loss is None:
            raise DivergedError("fusion", self.epoch + 1, 1, math.nan)
        self.epoch += 1
        return Report(self.epoch, {"dev/loss": loss})

    def checkpoint(self) -> bytes:
        return b"%d" % self.epoch


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("worker"))


def worker_with(storage: str, losses: list[float | None]) -> Worker:
    worker = Worker(storage, GPU, CORE_TRAINER, "id")
    given: Any = None  # neither data nor a plan is needed before the last epoch
    worker._sessions["session"] = _OpenSession(
        session=Epochs(losses),
        data=given,
        plan=given,
        config=Config(),
        checkpoints=Checkpoints(Store(storage), "sessions/test"),
    )
    return worker


@given(
    losses=st.lists(st.floats(0, 1) | st.just(math.nan), min_size=20, max_size=20),
    stops=st.sets(st.integers(1, 20)),
)
def test_no_epoch_is_trained_beyond_one_that_may_be_the_last(
    storage: str, losses: list[float | None], stops: set[int]
) -> None:
    worker, seen = worker_with(storage, [*losses, None]), []
    while True:
        steps = worker.advance("session", tuple(stops))
        if isinstance(steps, Failure):
            break
        assert isinstance(steps, list)
        for step in steps[:-1]:
            assert step.epoch not in stops
            assert math.isfinite(step.metrics["dev/loss"])
        seen += [step.epoch for step in steps]
    assert seen == list(range(1, 21))


def test_epochs_that_take_their_time_come_singly(
    storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "BATCH_SECONDS", 0.0)
    steps = worker_with(storage, [0.1] * 9).advance("session", ())
    assert isinstance(steps, list)
    assert [step.epoch for step in steps] == [1]


def test_a_failure_comes_after_the_epochs_before_it_and_stays(storage: str) -> None:
    worker = worker_with(storage, [0.1, 0.2, None])
    steps = worker.advance("session", ())
    assert isinstance(steps, list)
    assert [step.epoch for step in steps] == [1, 2]
    assert worker.export("session") is None
    for _ in range(2):
        failure = worker.advance("session", ())
        assert isinstance(failure, Failure)
        assert failure.kind == FailureKind.DIVERGED


def test_a_session_that_moved_is_elsewhere(storage: str) -> None:
    worker = worker_with(storage, [0.1] * 9)
    assert isinstance(worker.advance("session", range(1, 9)), list)
    assert worker.export("session") == b"1"
    assert isinstance(worker.advance("session", ()), Moved)
