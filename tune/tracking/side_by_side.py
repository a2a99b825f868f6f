"""Jobs that mostly wait for answers, done side by side."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

__all__ = ["SideBySide"]


class SideBySide:
    """Does jobs in threads; `seconds` is the time of a core that these have taken.

    Not an executor, whose threads the interpreter waits for at its end: a process must be able to
    end while a store hangs.
    """

    def __init__(self) -> None:
        self.seconds = 0.0

    def run(
        self, jobs: Sequence[Callable[[], None]], num_threads: int
    ) -> tuple[set[int], Exception | None]:
        """Do jobs, at most `num_threads` at once; after one has failed no other is begun.

        Returns:
            the places of those that are done, and what the first one that failed raised.
        """
        done: set[int] = set()
        errors: list[Exception] = []
        todo, lock = iter(range(len(jobs))), threading.Lock()

        def work() -> None:
            while not errors:
                with lock:
                    place = next(todo, None)
                if place is None:
                    return
                try:
                    jobs[place]()
                except Exception as error:
                    errors.append(error)
                else:
                    done.add(place)

        def work_aside() -> None:
            work()
            with lock:
                self.seconds += time.thread_time()

        if num_threads == 1 or len(jobs) == 1:
            work()
        else:
            threads = [
                threading.Thread(target=work_aside, daemon=True)
                for _ in range(min(num_threads, len(jobs)))
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        return done, errors[0] if errors else None
