"""The command line as a person uses it: processes, signals, exit codes and files."""

from __future__ import annotations

import json
import os
import signal
import time

import psutil
import pytest
import yaml

from tune.ledger import (
    SweepLayout,
    TrialEnded,
    TrialEvent,
    TrialSuggested,
    read_events,
    read_sweep,
)

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

NUM_TRIALS = 6
NUM_EPOCHS = 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_sweep):
    """A folder with a sweep file."""
    folder = tmp_path_factory.mktemp("work")
    sweep = tiny_sweep(
        "toy",
        {"fusion.audio_weight": {"float": [0.01, 1.0], "log": True}},
        search={"sampler": "random", "num_trials": NUM_TRIALS},
        fusion={"epochs": NUM_EPOCHS, "model": "magt"},
    )
    (folder / "toy.yaml").write_text(yaml.safe_dump(sweep.model_dump(mode="json")))
    return folder


def test_a_dry_run_writes_nothing(folder, run_command):
    code, out, err = run_command("sweep", "toy.yaml", "--dry-run", folder=folder)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == (
        f"sweep toy: {NUM_TRIALS} trials, 2 at a time, by random; distinct configurations: "
        "unbounded (continuous range)"
    )
    assert "teacher: 1 distinct, 0 exist; trains at most 1" in lines
    assert f"fusion: unbounded (continuous range); trains at most {NUM_TRIALS}" in lines
    assert lines[-1].startswith(
        "how long training takes is not known of teacher, audio, video, fusion"
    )
    assert len(lines) < 20
    assert [path.name for path in folder.iterdir()] == ["toy.yaml"]


def test_more_than_the_cluster_has_is_refused_before_anything_is_written(folder, run_command):
    code, _, err = run_command("sweep", "toy.yaml", "resources.video.gpu=99", folder=folder)
    assert code == 2
    assert err.startswith("magtkd: resources.video.gpu: asks for 99 GPU, but the cluster")
    assert err.count("\n") == 1
    assert not (folder / "magtkd-results" / "sweeps").exists()


def test_a_sweep_without_a_completed_trial_exits_with_1(folder, run_command):
    code, out, err = run_command(
        "sweep",
        "toy.yaml",
        "name=diverges",
        "search.num_trials=2",
        "fusion.learning_rate=1e30",
        "--no-tracking",
        "--storage",
        "diverges",
        folder=folder,
    )
    assert code == 1, err
    assert err.count("diverged") >= 2
    assert "next: magtkd best" not in out


@pytest.fixture(scope="module")
def interrupted(folder, start_command):
    """A sweep that got Ctrl-C after its first trial: exit code, output, processes it had."""
    process = start_command("sweep", "toy.yaml", "--storage", "at first", folder=folder)
    ledger = folder / "at first/sweeps/toy/ledger.jsonl"
    deadline = time.monotonic() + 120
    while not (ledger.is_file() and b"trial_ended" in ledger.read_bytes()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    descendants = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err, descendants


def test_an_interrupt_ends_cleanly(interrupted, folder, check_agreement):
    code, out, err, descendants = interrupted
    assert code == 130, err
    assert "Traceback" not in err
    assert "to resume: magtkd sweep --resume toy --storage 'at first'" in out
    assert "next: magtkd best toy --storage 'at first'" in out
    assert descendants
    _, alive = psutil.wait_procs(descendants, timeout=20)
    assert alive == []
    state = check_agreement(folder / "at first", "toy")
    assert state.closed == "interrupted"
    assert 1 <= state.count()["completed"] < NUM_TRIALS
    assert set(state.count()) == {"completed", "running"}


@pytest.fixture(scope="module")
def resumed(interrupted, folder, run_command):
    """The same sweep, resumed where its storage was moved to."""
    (folder / "at first").rename(folder / "magtkd-results")
    path = folder / "magtkd-results/sweeps/toy/ledger.jsonl"
    before = path.read_bytes()
    code, out, err = run_command("sweep", "--resume", "toy", folder=folder)
    assert code == 0, err
    assert path.read_bytes().startswith(before)
    return len(list(before.splitlines())), out


def test_a_resumed_sweep_runs_every_trial_once(resumed, folder, check_agreement):
    num_before, out = resumed
    assert "next: magtkd best toy" in out
    events = list(read_events(folder / "magtkd-results/sweeps/toy/ledger.jsonl"))
    suggested = [event.trial for event in events if isinstance(event, TrialSuggested)]
    assert suggested == list(range(NUM_TRIALS))
    ended = [event.trial for event in events if isinstance(event, TrialEnded)]
    assert sorted(ended) == list(range(NUM_TRIALS))
    ended_before = {one.trial for one in events[:num_before] if isinstance(one, TrialEnded)}
    after = {one.trial for one in events[num_before:] if isinstance(one, TrialEvent)}
    assert not ended_before & after
    state = check_agreement(folder / "magtkd-results", "toy")
    assert state.closed == "finished"
    assert state.count() == {"completed": NUM_TRIALS}
    for trial in state.trials.values():
        assert [report.epoch for report in trial.reports] == list(range(1, NUM_EPOCHS + 1))
    assert not (folder / "at first").exists()  # MLflow's artifacts are in the moved storage, too


def test_a_finished_sweep_resumes_to_nothing(resumed, folder, run_command):
    state = read_sweep(SweepLayout(folder / "magtkd-results", "toy"))
    code, _, err = run_command("sweep", "--resume", "toy", folder=folder)
    assert code == 0, err
    after = read_sweep(SweepLayout(folder / "magtkd-results", "toy"))
    assert after.trials == state.trials
    assert after.closed == "finished"


def test_an_exported_configuration_gives_the_same_dev_metrics(resumed, folder, run_command):
    code, out, err = run_command("best", "toy", "--json", "--export", "best.yaml", folder=folder)
    assert code == 0, err
    row = json.loads(out)
    assert {"values", "base", "changes", "epoch", "objectives", "dev", "stages"} < set(row)
    assert row["test"] is None
    code, out, err = run_command(
        "train", "best.yaml", "--storage", "fresh", "--json", folder=folder
    )
    assert code == 0, err
    trained = json.loads(out)
    assert trained["dev"] == row["dev"]
    assert trained["stages"] == row["stages"]
    assert set(trained["outcomes"].values()) == {"trained"}


def test_revealing_test_shows_it_for_one_trial(resumed, folder, run_command):
    shown = []
    for _ in range(2):
        code, out, err = run_command("best", "toy", "--reveal-test", "--json", folder=folder)
        assert code == 0, err
        shown.append(json.loads(out))
    assert shown[0] == shown[1]
    assert set(shown[0]["test"]) == {"accuracy", "weighted_f1", "macro_f1", "per_class"}
    code, out, err = run_command("trials", "toy", "--format", "json", folder=folder)
    assert code == 0, err
    seen = {row["trial"]: row["test"] for row in json.loads(out)}
    assert seen == dict.fromkeys(range(NUM_TRIALS)) | {shown[0]["trial"]: shown[0]["test"]}
