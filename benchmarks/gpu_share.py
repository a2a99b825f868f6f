"""How much more is trained in an hour when several processes train on one device at once.

A process here is what a worker is in a sweep with `resources.fusion.gpu: 1/N`: an interpreter with
a CUDA context of its own, which trains the published size of MAGT.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from gpu_inputs import the_device
from gpu_rows import Row, row
from gpu_sizes import fusion_session

__all__ = ["sharing"]

AT_ONCE = (1, 2, 4, 8)
AT_ONCE_ON_CPU = (1, 2)
NUM_EPOCHS = 4


class Process:
    """One that has trained an epoch, and trains more when asked."""

    def __init__(self) -> None:
        # The packages that were brought along are on the path of this process alone.
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def wait(self) -> float:
        """Its next number: seconds of an epoch.

        Raises:
            RuntimeError: it ended instead.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a process that trains ended, exit code {self._process.wait()}")
        return float(line)

    def begin(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def sharing(folder: Path) -> Iterator[Row]:
    """A row for each number of processes: the epochs a minute of all of them together."""
    del folder  # each process has its own
    is_cuda = the_device().type == "cuda"
    counts = AT_ONCE if is_cuda else AT_ONCE_ON_CPU
    with contextlib.ExitStack() as stack:
        processes = [Process() for _ in range(max(counts))]
        for process in processes:
            stack.callback(process.close)
        for process in processes:
            process.wait()
        held = _used_gib() / len(processes) if is_cuda else 0.0
        rates = {count: _epochs_a_minute(processes[:count]) for count in counts}
    for count, rate in rates.items():
        measured = f"{rate:.1f} epochs a minute, {rate / rates[1]:.2f} times one"
        measured += f", {held:.2f} GiB each" if is_cuda else ""
        yield row("sharing", f"MAGT, {count} at once", "more than none", measured, rate > 0)


def _epochs_a_minute(processes: Sequence[Process]) -> float:
    for process in processes:
        process.begin()
    return sum(60 / process.wait() for process in processes)


def _used_gib() -> float:
    free, total = torch.cuda.mem_get_info()
    return (total - free) / 2**30


def main() -> None:
    """A process: the seconds of an epoch for each line of stdin, the first without one."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="magtkd-gpu-") as folder:
        session, _ = fusion_session(Path(folder))
        session.advance()  # every shape has been seen now
        print(0.0, flush=True)
        for _ in sys.stdin:
            seconds = []
            for _ in range(NUM_EPOCHS):
                started = time.perf_counter()
                session.advance()
                seconds.append(time.perf_counter() - started)
            print(statistics.median(seconds), flush=True)


if __name__ == "__main__":
    main()
