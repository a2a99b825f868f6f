"""A sweep on an object store that fails, loses its driver, or has two."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator

import pytest
import yaml

from magtkd.store import Files
from tests.cluster.object_store import CREDENTIALS, FailingProxy, MotoServer
from tests.integration.conftest import *  # noqa: F403 (fixtures: sweeps and commands)
from tune.ledger import (
    EpochReported,
    StagesRecorded,
    SweepLayout,
    TrialEnded,
    TrialSuggested,
    read_events,
)
from tune.ledger.remote import RemoteLedger

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

NUM_TRIALS, NUM_EPOCHS = 4, 60
AWAY_SECONDS = 30


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MotoServer]:
    server = MotoServer(tmp_path_factory.mktemp("moto"))
    yield server
    server.close()


@pytest.fixture
def proxy(server: MotoServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[FailingProxy]:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    proxy = FailingProxy(server.port)
    yield proxy
    proxy.close()


@pytest.fixture(scope="module")
def sweep_file(tmp_path_factory, tiny_sweep):
    """A sweep whose trials depend on nothing but their numbers."""
    sweep = tiny_sweep(
        "toy",
        {"fusion.audio_weight": {"float": [0.01, 1.0], "log": True}},
        search={"sampler": "random", "num_trials": NUM_TRIALS, "max_concurrent": 2},
        fusion={"epochs": NUM_EPOCHS, "model": "magt"},
    )
    path = tmp_path_factory.mktemp("sweep") / "toy.yaml"
    path.write_text(yaml.safe_dump(sweep.model_dump(mode="json")))
    return path


@pytest.fixture
def work(tmp_path):
    """Makes empty working folders, as new machines have."""

    def make(name):
        folder = tmp_path / name
        folder.mkdir()
        return folder

    return make


def ledger_of(proxy, prefix, name="toy"):
    """The events of the ledger in the store."""
    layout = SweepLayout.of(proxy.address(prefix), name)
    content = RemoteLedger(layout, Files(layout.remote)).read()
    return [json.loads(line) for line in content.splitlines()]


def wait_for(process, condition, seconds=240):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)


def local_events(folder, name="toy"):
    path = folder / f"magtkd-results/sweeps/{name}/ledger.jsonl"
    return list(read_events(path)) if path.is_file() else []


def num_of(events, kind):
    return sum(isinstance(event, kind) for event in events)


def check_each_once(events):
    """Every trial is there once, has ended as completed, and has each epoch once."""
    suggested = [event.trial for event in events if isinstance(event, TrialSuggested)]
    assert suggested == list(range(NUM_TRIALS))
    ended = {event.trial: event.state for event in events if isinstance(event, TrialEnded)}
    assert ended == dict.fromkeys(range(NUM_TRIALS), "completed")
    epochs = Counter((one.trial, one.epoch) for one in events if isinstance(one, EpochReported))
    assert set(epochs.values()) == {1}
    assert len(epochs) == NUM_TRIALS * NUM_EPOCHS


@pytest.mark.parametrize("mode", ["reset", "500", "503"])
def test_a_store_that_is_away_for_a_while_only_costs_time(
    mode, proxy, sweep_file, work, start_command, run_command
):
    folder, storage = work("here"), proxy.address(f"away-{mode}")
    process = start_command("sweep", sweep_file, "--storage", storage, folder=folder)
    wait_for(process, lambda: num_of(local_events(folder), EpochReported) > 10)
    proxy.mode = mode
    time.sleep(AWAY_SECONDS)
    assert process.poll() is None, process.communicate()
    refused = proxy.num_refused
    proxy.mode = "pass"
    _, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert refused > 0
    assert "trying again for 300 s" in err
    assert "the wait is over, after " in err
    assert len(err.splitlines()) < 30  # no flood
    check_each_once(local_events(folder))
    assert len(ledger_of(proxy, f"away-{mode}")) == len(local_events(folder))
    # Another machine sees all of it.
    there = work("there")
    code, out, err = run_command("trials", "toy", "--storage", storage, folder=there)
    assert code == 0, err
    assert out.count("completed") == NUM_TRIALS


@pytest.mark.parametrize("mode", ["reset", "500"])
def test_a_store_that_stays_away_stops_the_sweep_and_it_continues_later(
    mode, proxy, sweep_file, work, start_command, run_command
):
    folder, storage = work("here"), proxy.address(f"gone-{mode}")
    process = start_command(
        "sweep",
        sweep_file,
        "--storage",
        storage,
        folder=folder,
        MAGTKD_STORAGE_PATIENCE="10",
    )
    wait_for(process, lambda: num_of(local_events(folder), EpochReported) > 10)
    proxy.mode = mode
    _, err = process.communicate(timeout=240)
    assert process.returncode == 75, err
    last = err.splitlines()[-1]
    assert last.startswith(f"magtkd: storage {storage}: cannot ")
    tried = re.search(r"; tried for (\d+) s", last)
    assert tried, last
    assert 10 <= int(tried[1]) < 60  # the last attempt has its own time
    assert "; continue when it answers; to resume: magtkd sweep --resume toy --storage" in last
    assert "make room" not in err
    assert "Traceback" not in err
    proxy.mode = "pass"
    code, _, err = run_command("sweep", "--resume", "toy", "--storage", storage, folder=folder)
    assert code == 0, err
    check_each_once(local_events(folder))


def test_a_killed_driver_is_continued_on_another_machine(
    proxy, sweep_file, work, start_command, run_command
):
    first, second, third = work("first"), work("second"), work("third")
    storage = proxy.address("killed")
    process = start_command("sweep", sweep_file, "--storage", storage, folder=first)
    wait_for(process, lambda: num_of(local_events(first), TrialEnded) > 0)
    time.sleep(2)
    process.kill()
    _, err = process.communicate()
    # What was shown as ended is in the store.
    shown = {int(number) for number in re.findall(r"^trial (\d+) completed", err, re.MULTILINE)}
    uploaded = ledger_of(proxy, "killed")
    assert set() != shown <= {one["trial"] for one in uploaded if one["kind"] == "trial_ended"}
    code, _, err = run_command("status", "toy", "--storage", storage, folder=third)
    assert code == 0, err
    code, _, err = run_command("sweep", "--resume", "toy", "--storage", storage, folder=second)
    assert code == 0, err
    events = local_events(second)
    check_each_once(events)
    assert [json.loads(line) for line in _lines(second)] == ledger_of(proxy, "killed")
    for command in (["best", "toy", "--json"], ["trials", "toy"], ["sync", "toy"]):
        code, _, err = run_command(*command, "--storage", storage, folder=third)
        assert code == 0, err
    assert _lines(third) == _lines(second)
    # The first machine lacks what the second one did, or has events of its own, which are named.
    code, _, err = run_command("trials", "toy", "--storage", storage, folder=first)
    assert code == 0 or (code == 2 and "differ after byte" in err)


def _lines(folder):
    return (folder / "magtkd-results/sweeps/toy/ledger.jsonl").read_bytes().splitlines()


def test_a_second_driver_is_refused_and_one_that_was_taken_over_stops(
    proxy, sweep_file, work, start_command, run_command
):
    first, second = work("first"), work("second")
    storage = proxy.address("two")
    process = start_command(
        "sweep", sweep_file, "fusion.epochs=5000", "--storage", storage, folder=first
    )
    wait_for(process, lambda: num_of(local_events(first), EpochReported) > 0)
    resume = ["sweep", "--resume", "toy", "--storage", storage]
    code, _, err = run_command(*resume, folder=second)
    assert code == 2
    assert f"sweep 'toy': process {process.pid} on " in err
    assert "is running it; wait for its end" in err
    code, out, err = run_command("status", "toy", "--storage", storage, folder=second)
    assert code == 0, err
    assert f"process {process.pid} on " in out
    # A machine that sleeps, and wakes up when another one has gone on.
    os.kill(process.pid, signal.SIGSTOP)
    other = start_command(*resume, folder=second)
    wait_for(other, lambda: num_of(local_events(second), EpochReported) > 0)
    before = len(local_events(second))
    wait_for(other, lambda: len(local_events(second)) > before + 20)
    os.kill(process.pid, signal.SIGCONT)
    _, err = process.communicate(timeout=150)
    assert process.returncode == 75, err
    assert f"process {other.pid} on " in err.splitlines()[-1]
    assert "has taken it over" in err.splitlines()[-1]
    assert other.poll() is None
    other.send_signal(signal.SIGTERM)
    _, err = other.communicate(timeout=150)
    assert other.returncode == 130, err
    assert len(ledger_of(proxy, "two")) == len(_lines(second))


def test_what_lasts_is_not_waited_for(proxy, sweep_file, work, run_command):
    started = time.monotonic()
    proxy.mode = "403"
    code, _, err = run_command(
        "sweep", sweep_file, "--storage", proxy.address("closed"), folder=work("here")
    )
    assert code == 2, err
    assert "ACCESS_DENIED" in err
    assert "rights of the credentials" in err
    assert time.monotonic() - started < 60
    proxy.mode = "pass"
    nowhere = proxy.address("x").replace("s3://bucket/", "s3://nowhere/")
    code, _, err = run_command("sweep", sweep_file, "--storage", nowhere, folder=work("there"))
    assert code == 2, err
    assert "'nowhere' not found" in err


def test_a_confirmation_is_continued_on_another_machine(
    proxy, sweep_file, work, start_command, run_command
):
    first, second, third = work("first"), work("second"), work("third")
    storage = proxy.address("confirmed")
    shorter = "search.num_trials=2", "fusion.epochs=5", "--no-tracking", "--storage", storage
    code, _, err = run_command("sweep", sweep_file, *shorter, folder=first)
    assert code == 0, err
    arguments = "confirm", "toy", "--seeds", "3", "--no-tracking", "--storage", storage
    process = start_command(*arguments, folder=first)
    wait_for(process, lambda: num_of(local_events(first, "toy/confirm"), TrialEnded) >= 2)
    process.kill()
    process.communicate()
    code, out, err = run_command(*arguments, folder=second)
    assert code == 0, err
    assert "chosen: trial " in out
    events = local_events(second, "toy/confirm")
    assert [event.trial for event in events if isinstance(event, TrialSuggested)] == list(range(6))
    trained = Counter(
        (stage, record.key)
        for event in events
        if isinstance(event, StagesRecorded)
        for stage, record in event.stages.items()
        if record.outcome == "trained"
    )
    assert set(trained.values()) == {1}
    code, out, err = run_command("best", "toy", "--reveal-test", "--storage", storage, folder=third)
    assert code == 0, err
    assert "over 3 fresh seeds (1 to 3)" in out
    assert "revealed, over the same seeds: test accuracy" in out
