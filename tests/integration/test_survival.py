"""A sweep whose driver is stopped or killed, whose disk is full, or that has a twin. Each runs in a
store of its own, named like it, so that nothing is taken from another."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
import yaml

from magtkd.data import read_corpus
from magtkd.pipeline import source_of
from magtkd.store import Store, is_locked
from tune.ledger import EpochReported, SweepLayout, read_events, read_sweep

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

NUM_TRIALS, NUM_EPOCHS = 4, 60
SPACE = {"fusion.audio_weight": {"float": [0.01, 1.0], "log": True}}


def events_of(folder, name):
    path = SweepLayout(folder / name, name).ledger
    return list(read_events(path)) if path.is_file() else []


def new(name, *overrides):
    return "sweep", "toy.yaml", f"name={name}", *overrides, "--storage", name


def resume(name):
    return "sweep", "--resume", name, "--storage", name


def wait_for(process, condition):
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def num_reports(folder, name):
    return sum(isinstance(event, EpochReported) for event in events_of(folder, name))


def last_epochs(folder, name):
    """The last epoch in the ledger of each trial that has not ended, 0 before the first."""
    trials = read_sweep(SweepLayout(folder / name, name)).trials.values()
    return {t.number: max(t.epochs_seen, default=0) for t in trials if not t.has_ended}


def saved_epochs(folder, name):
    """The epoch of each trial's checkpoint, from the header of its file."""
    sweep_id = events_of(folder, name)[0].sweep_id
    found = {}
    for path in (folder / name / "sessions/sweeps" / sweep_id).glob("*/*/*"):
        content = path.read_bytes()
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        found[int(path.parts[-3])] = json.loads(header["__metadata__"]["progress"])["epoch"]
    return found


def is_trained(folder, name, number):
    """Whether a trial's fusion artifact is there."""
    state = read_sweep(SweepLayout(folder / name, name))
    source = source_of(read_corpus(state.sweep.data))
    plan = state.trials[number].candidate.plan(state.sweep.base, source)
    return Store(folder / name).exists("fusion", plan.fusion_key)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_sweep):
    """A folder with a sweep file whose trials depend on nothing but their numbers."""
    folder = tmp_path_factory.mktemp("work")
    sweep = tiny_sweep(
        "toy",
        SPACE,
        search={"sampler": "random", "num_trials": NUM_TRIALS, "max_concurrent": 2},
        fusion={"epochs": NUM_EPOCHS, "model": "magt"},
    )
    (folder / "toy.yaml").write_text(yaml.safe_dump(sweep.model_dump(mode="json")))
    return folder


@pytest.fixture(scope="module")
def undisturbed(folder, run_command):
    """The reports of a sweep that nothing happens to."""
    code, _, err = run_command(*new("undisturbed"), folder=folder)
    assert code == 0, err
    return reports_of(folder, "undisturbed")


def reports_of(folder, name):
    state = read_sweep(SweepLayout(folder / name, name))
    return {
        number: [(report.epoch, report.metrics) for report in trial.reports]
        for number, trial in state.trials.items()
    }


def test_signals_save_what_runs_and_the_sweep_continues_from_there(
    folder, start_command, run_command, check_agreement
):
    """SIGTERM to the driver alone, SIGUSR1 to all processes of the job as Slurm sends it."""
    # As a job that is repeated does it: the same command starts and resumes.
    arguments = *new("toy"), "--resume-or-start"
    for number, to_all in ((signal.SIGTERM, False), (signal.SIGUSR1, True)):
        before = num_reports(folder, "toy")
        process = start_command(*arguments, folder=folder)
        wait_for(process, lambda before=before: num_reports(folder, "toy") > before + 10)
        (os.killpg if to_all else os.kill)(process.pid, number)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 130, err
        assert f"{number.name}: saving what runs" in err
        assert "magtkd sweep --resume toy" in out
        saved, last = saved_epochs(folder, "toy"), last_epochs(folder, "toy")
        assert last
        for trial, epoch in last.items():
            # Nothing that was reported is trained again: a trial that has no checkpoint was trained
            # to its end, in a batch of epochs that the driver has not seen.
            if epoch > 0:
                assert saved[trial] >= epoch if trial in saved else is_trained(folder, "toy", trial)
    code, _, err = run_command(*arguments, folder=folder)
    assert code == 0, err
    state = check_agreement(folder / "toy", "toy")
    assert (state.count(), state.num_resumed) == ({"completed": NUM_TRIALS}, 2)
    assert list((folder / "toy/sessions/sweeps").iterdir()) == []


def test_a_killed_sweep_gives_what_an_undisturbed_one_gives(
    folder, undisturbed, start_command, run_command, check_agreement
):
    process = start_command(*new("killed"), folder=folder)
    wait_for(process, lambda: num_reports(folder, "killed") > NUM_EPOCHS)
    process.kill()
    process.communicate()
    code, _, err = run_command(*resume("killed"), folder=folder)
    assert code == 0, err
    state = check_agreement(folder / "killed", "killed")
    assert state.num_resumed == 1
    assert reports_of(folder, "killed") == undisturbed
    epochs = Counter(
        (event.trial, event.epoch)
        for event in events_of(folder, "killed")
        if isinstance(event, EpochReported)
    )
    assert set(epochs.values()) == {1}


def test_two_sweeps_at_once_on_one_store_train_no_stage_twice(folder, start_command):
    sections = [
        "search.sampler=grid",
        "space={teacher.hidden_dim: {choice: [9, 10]}, fusion.dropout: {choice: [0.1, 0.2]}}",
    ]
    twins = [
        start_command(*new(name, *sections)[:-1], "twins", folder=folder)
        for name in ("twin1", "twin2")
    ]
    for process in twins:
        _, err = process.communicate(timeout=240)
        assert process.returncode == 0, err
    outcomes, reports = {}, []
    for name in ("twin1", "twin2"):
        state = read_sweep(SweepLayout(folder / "twins", name))
        reports.append({number: trial.reports for number, trial in state.trials.items()})
        assert state.count() == {"completed": 4}
        for trial in state.trials.values():
            for stage, record in trial.stages.items():
                outcomes.setdefault((stage, record.key), Counter())[record.outcome] += 1
    assert Counter(stage for stage, _ in outcomes) == {
        "data": 1,
        "teacher": 2,
        "audio": 2,
        "video": 2,
        "fusion": 4,
    }
    assert {counted["trained"] for counted in outcomes.values()} == {1}
    metrics = [{n: [report.metrics for report in of] for n, of in one.items()} for one in reports]
    assert metrics[0] == metrics[1]
    assert list((folder / "twins/locks").iterdir()) == []


def test_a_second_driver_of_one_sweep_is_refused(folder, start_command, run_command):
    process = start_command(*new("alone", "fusion.epochs=5000"), folder=folder)
    wait_for(process, lambda: num_reports(folder, "alone") > 0)
    code, _, err = run_command(*resume("alone"), folder=folder)
    assert code == 2
    assert err.startswith(f"magtkd: sweep 'alone': process {process.pid} on ")
    assert "is running it; wait for its end" in err
    process.kill()
    process.communicate()
    assert not is_locked(SweepLayout(folder / "alone", "alone").lock)


def test_a_storage_that_is_moved_away_stops_the_sweep(folder, start_command, run_command):
    process = start_command(*new("moved", "fusion.epochs=5000"), folder=folder)
    wait_for(process, lambda: num_reports(folder, "moved") > 0)
    (folder / "moved").rename(folder / "elsewhere")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    last = err.splitlines()[-1]
    assert "the storage was removed, unmounted or" in last or "the folder was removed" in last
    assert last.endswith("; to resume: magtkd sweep --resume moved --storage moved")
    assert "Traceback" not in err


@pytest.mark.parametrize("name", ["raylet", pytest.param("gcs_server", marks=pytest.mark.cluster)])
def test_ray_that_goes_away_ends_the_sweep_and_it_continues_on_another(
    name, folder, start_command, run_command
):
    sweep = f"without-{name.replace('_', '-')}"
    process = start_command(*new(sweep), folder=folder)
    wait_for(process, lambda: num_reports(folder, sweep) > 0)
    (victim,) = (
        one for one in psutil.Process(process.pid).children(recursive=True) if one.name() == name
    )
    victim.kill()
    _, err = process.communicate(timeout=120)
    assert process.returncode == 75, err
    (line,) = (line for line in err.splitlines() if line.startswith("magtkd: "))
    assert line.startswith("magtkd: Ray is gone: ")
    assert line.endswith(f"; to resume: magtkd sweep --resume {sweep} --storage {sweep}")
    code, _, err = run_command(*resume(sweep), folder=folder)
    assert code == 0, err
    assert read_sweep(SweepLayout(folder / sweep, sweep)).count() == {"completed": NUM_TRIALS}


@contextlib.contextmanager
def small_disk(folder: Path, size: str):
    """A file system of its own; what runs below is skipped where none can be mounted."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system takes a right that this user does not have")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_ends_the_sweep_and_more_room_lets_it_continue(
    tmp_path, folder, undisturbed, run_command, check_agreement
):
    disk = tmp_path / "disk"
    with small_disk(disk, "300k"):
        storage = ["--storage", disk / "store"]
        log = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"}
        code, _, err = run_command(
            "sweep", folder / "toy.yaml", "name=undisturbed", *storage, folder=tmp_path, **log
        )
        assert code == 75, err
        last = err.splitlines()[-1]
        assert last.startswith("magtkd: ")
        assert "No space left on device; make room" in last
        assert "Traceback" not in err
        state = read_sweep(SweepLayout(disk / "store", "undisturbed"))
        assert "failed" not in state.count()
        for manifest in (disk / "store/artifacts").glob("*/*"):
            assert (manifest / "manifest.json").is_file()  # no half of an artifact
        subprocess.run(["mount", "-o", "remount,size=50m", str(disk)], check=True)
        code, _, err = run_command("sweep", "--resume", "undisturbed", *storage, folder=tmp_path)
        assert code == 0, err
        resumed = read_sweep(SweepLayout(disk / "store", "undisturbed"))
        assert resumed.count() == {"completed": NUM_TRIALS}
        reports = {
            number: [(report.epoch, report.metrics) for report in trial.reports]
            for number, trial in resumed.trials.items()
        }
        assert reports == undisturbed
