"""Jobs side by side: all of them, at most so many at once, and none after one has failed."""

from __future__ import annotations

import threading

import pytest

from tune.tracking.side_by_side import SideBySide


@pytest.mark.parametrize("num_threads", [1, 3, 50])
def test_every_job_is_done_once(num_threads: int) -> None:
    called: list[int] = []
    jobs = [lambda number=number: called.append(number) for number in range(23)]
    assert SideBySide().run(jobs, num_threads) == (set(range(23)), None)
    assert sorted(called) == list(range(23))
    assert SideBySide().run([], num_threads) == (set(), None)


def test_jobs_run_at_once_and_no_more_of_them() -> None:
    # Each waits for two others: fewer threads would never end, more would break the barrier.
    barrier, lock, running, most = threading.Barrier(3), threading.Lock(), [0], [0]

    def job() -> None:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        barrier.wait(timeout=60)
        with lock:
            running[0] -= 1

    done, error = SideBySide().run([job] * 6, 3)
    assert (len(done), error, most) == (6, None, [3])


def test_after_a_failure_nothing_is_begun() -> None:
    begun: list[int] = []

    def job(number: int) -> None:
        begun.append(number)
        if number == 2:
            raise OSError("away")

    done, error = SideBySide().run([lambda n=n: job(n) for n in range(7)], 1)
    assert (done, begun) == ({0, 1}, [0, 1, 2])
    assert isinstance(error, OSError)
