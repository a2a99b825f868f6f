"""When a job is requeued: until its sweep is finished, and three times without progress."""

from __future__ import annotations

import pytest
import yaml

from magtkd.data import read_corpus
from magtkd.pipeline import source_of
from magtkd.store import Store
from tune.config import load_sweep
from tune.ledger import (
    EpochReported,
    SweepClosed,
    SweepEnd,
    SweepLayout,
    SweepOpened,
    TrialSuggested,
    open_ledger,
    read_sweep,
)
from tune.slurm.progress import is_worth_another


@pytest.fixture
def storage(tmp_path):
    """A sweep with a trial that has no epoch yet."""
    tree = {
        "name": "toy",
        "data": {"synthetic": {"num_dialogues": 11, "mean_length": 3}},
        "space": {"fusion.dropout": {"float": [0.0, 0.9]}},
    }
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(tree))
    sweep = load_sweep(tmp_path / "toy.yaml")
    with open_ledger(SweepLayout(tmp_path, "toy")) as ledger:
        ledger.append(SweepOpened(name="toy", config=sweep.model_dump(mode="json")))
        ledger.append(TrialSuggested(trial=0, values={"fusion.dropout": 0.1}, seed=0))
    return tmp_path


@pytest.fixture
def ask(storage):
    def run():
        return is_worth_another("toy", str(storage), storage / "job.json")

    return run


def append(storage, event):
    with open_ledger(SweepLayout(storage, "toy"), resume=True) as ledger:
        ledger.append(event)


def teacher_of(storage):
    """Where checkpoints of the trial's teacher are."""
    state = read_sweep(SweepLayout(storage, "toy"))
    plan = state.trials[0].candidate.plan(
        state.sweep.base, source_of(read_corpus(state.sweep.data))
    )
    return f"sessions/stages/teacher-{plan.keys['teacher']}"


def test_checkpoints_of_other_sweeps_are_no_progress(ask, storage):
    found = []
    for attempt in range(4):
        name = f"sessions/stages/teacher-abc/{attempt:020}-{attempt:064x}.safetensors"
        Store(str(storage)).write_file(name, b"")
        found.append(ask())
    assert found == [True] * 3 + [False]


def test_three_times_without_progress(ask, capsys):
    assert [ask() for _ in range(5)] == [True, True, True, False, False]
    assert "no progress in 3 attempts, so this job is not requeued" in capsys.readouterr().out


def test_an_epoch_is_progress(ask, storage):
    assert [ask() for _ in range(3)] == [True] * 3
    append(storage, EpochReported(trial=0, epoch=1, metrics={"dev/loss": 1.0}))
    assert [ask() for _ in range(5)] == [True] * 4 + [False]


def test_a_stage_that_is_longer_than_a_job_progresses_by_its_checkpoints(ask, storage):
    folder = teacher_of(storage)
    for attempt in range(6):
        Store(str(storage)).write_file(f"{folder}/{attempt:020}-{attempt:064x}.safetensors", b"")
        assert ask()


def test_the_same_checkpoint_saved_again_is_none(ask, storage):
    folder = teacher_of(storage)
    found = []
    for attempt in range(5):
        Store(str(storage)).remove_folder(folder)
        Store(str(storage)).write_file(f"{folder}/{attempt:020}-{1:064x}.safetensors", b"")
        found.append(ask())
    assert found == [True] * 4 + [False]


def test_a_finished_sweep_needs_none(ask, storage):
    append(storage, SweepClosed(reason=SweepEnd.INTERRUPTED))
    assert ask()
    append(storage, SweepClosed(reason=SweepEnd.FINISHED))
    assert not ask()


def test_a_sweep_that_was_not_begun_is_tried_three_times(tmp_path, capsys):
    file = tmp_path / "job.json"
    assert [is_worth_another("none", str(tmp_path), file) for _ in range(4)] == [True] * 3 + [False]
    assert "sweep none: its progress cannot be read" in capsys.readouterr().out


def test_what_cannot_be_counted_is_not_repeated(ask, storage, capsys):
    (storage / "job.json").mkdir()
    assert not ask()
    assert (
        "cannot be written: Is a directory, so this job is not requeued" in capsys.readouterr().out
    )
