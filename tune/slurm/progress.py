"""Whether a job whose driver has ended is worth another attempt: its sweep is not finished, and has
progressed, or has not for a few times only. `python -m tune.slurm.progress NAME STORAGE FILE` ends
with 0 if it is, and keeps in the file what it saw."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path

from magtkd.data import read_corpus
from magtkd.errors import MagtkdError, first_line
from magtkd.pipeline import source_of
from magtkd.store import Store, patience_of
from tune.ledger import SweepEnd, SweepLayout, SweepState, read_sweep

__all__ = ["is_worth_another", "seen_of"]

MAX_ATTEMPTS = 3
"""Without progress, beside the first one."""
NOTHING: list[object] = [0, 0, 0, []]
PATIENCE_SECONDS = 20.0


def seen_of(state: SweepState, store: Store) -> list[object]:
    """What grows with a sweep's progress: stages, epochs and trials that ended, and checkpoints of
    stages in training, since one of these may take longer than a job.

    Raises:
        StorageLostError: the storage does not answer.
    """
    trials = state.trials.values()
    stages = set(store.list_folders("sessions/stages"))
    if stages:
        stages &= _own_stages(state)
    checkpoints = [
        file.rpartition("-")[2]  # without the time: the same one may be saved again
        for stage in sorted(stages)
        for file in store.list_files(f"sessions/stages/{stage}")
    ]
    return [
        len(state.ended),
        sum(len(trial.epochs_seen) for trial in trials),
        sum(len(trial.stages) for trial in trials),
        checkpoints,
    ]


def _own_stages(state: SweepState) -> set[str]:
    """The stages that trials which have not ended need, by the names of their checkpoints: other
    sweeps on the storage have some, too."""
    source = source_of(read_corpus(state.sweep.data))
    plans = [trial.candidate.plan(state.sweep.base, source) for trial in state.running.values()]
    return {f"{stage}-{key}" for plan in plans for stage, key in plan.keys.items()}


def is_worth_another(name: str, storage: str, file: Path) -> bool:
    """Whether to try again, by what the last attempts left in a file."""
    seen, failed = NOTHING, 0
    with contextlib.suppress(OSError, ValueError, TypeError):
        seen, failed = json.loads(file.read_text(encoding="utf-8"))
    before = seen
    try:
        state = read_sweep(SweepLayout.of(storage, name))
        if state.closed == SweepEnd.FINISHED:
            return False
        seen = seen_of(state, Store(storage))
    except MagtkdError as error:
        print(f"sweep {name}: its progress cannot be read: {first_line(error)}")
    failed = failed + 1 if seen == before else 0
    try:
        file.write_text(json.dumps([seen, failed]), encoding="utf-8")
    except OSError as error:
        # Without it attempts cannot be counted, and there might be no end of them.
        print(f"{file}: cannot be written: {error.strerror}, so this job is not requeued")
        return False
    if failed > MAX_ATTEMPTS:
        print(
            f"sweep {name}: no progress in {MAX_ATTEMPTS} attempts, so this job is not requeued; "
            "see above why, then submit it again"
        )
    return failed <= MAX_ATTEMPTS


if __name__ == "__main__":
    with patience_of(PATIENCE_SECONDS):
        sys.exit(0 if is_worth_another(sys.argv[1], sys.argv[2], Path(sys.argv[3])) else 1)
