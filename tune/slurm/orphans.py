"""Cancels the worker jobs of a driver that was killed. `python -m tune.slurm.orphans NAME COMMENT`
runs after Ray's head has ended, so that nothing submits new ones."""

from __future__ import annotations

import sys
import time

from magtkd.errors import MagtkdError
from tune.slurm.commands import cancel, queued

__all__ = ["cancel_orphans"]

ATTEMPTS, PAUSE_SECONDS = 60, 5.0
"""Slurm may be away, or be taking a job at this moment."""


def cancel_orphans(name: str, comment: str) -> None:
    """Cancel the jobs of a name and a comment until none is in the queue, for five minutes."""
    num_empty = 0
    for _ in range(ATTEMPTS):
        try:
            jobs = [job.id for job in queued(name, comment)]
            cancel(jobs)
        except MagtkdError as error:
            print(error, file=sys.stderr)
        else:
            num_empty = 0 if jobs else num_empty + 1
        if num_empty == 2:
            return
        time.sleep(PAUSE_SECONDS)


if __name__ == "__main__":
    cancel_orphans(*sys.argv[1:])
