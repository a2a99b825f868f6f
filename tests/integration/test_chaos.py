"""A sweep whose processes are killed at random, and checks that would see what that did to it."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
NUM_KILLS = 10


def load(name):
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look
    spec.loader.exec_module(module)
    return module


checks = load("chaos_checks")
KINDS = ("driver", "trial", "stage", "fusion", "engine", "raylet", "artifact")


# --- the real thing ---------------------------------------------------------------------------


@pytest.mark.cluster
@pytest.mark.ray
@pytest.mark.slow
def test_a_sweep_outlives_kills_of_all_kinds(tmp_path):
    command = [sys.executable, str(BENCHMARKS / "chaos.py"), "--out", str(tmp_path / "out.json")]
    command += ["--kills", str(NUM_KILLS), "--trials", "4", "--rounds", "1", "--epochs", "100"]
    # Signals and outages of MLflow have tests of their own; how they meet with kills that came a
    # moment before is a matter of the machine's speed, which only the long run can afford.
    command += ["--every", "1", "--seed", "3", "--kinds", *KINDS]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=280)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
    assert process.returncode == 0, output
    summary = json.loads((tmp_path / "out.json").read_text())
    assert len(summary["kills"]) == NUM_KILLS
    assert len({kill["kind"] for kill in summary["kills"]}) > NUM_KILLS // 3
    assert sum(one["kills"] for one in summary["rounds"]) == NUM_KILLS
    assert [one["failures"] for one in summary["rounds"]] == [[]] * len(summary["rounds"])


# --- the checks see what is wrong -------------------------------------------------------------


def sweep(*events, kind="fifo", epochs=4, **scheduler):
    """Lines of a ledger around these events."""
    config = {
        "objective": [{"metric": "dev/f", "mode": "max"}],
        "scheduler": {"kind": kind, **scheduler},
        "fusion": {"epochs": epochs},
    }
    opened = {"kind": "sweep_opened", "sweep_id": "s", "name": "n", "config": config}
    every = [opened, *events, {"kind": "sweep_closed", "reason": "finished"}]
    return [{"time": index, "line": index + 1, **event} for index, event in enumerate(every)]


def suggested(trial, **values):
    return {"kind": "trial_suggested", "trial": trial, "values": {"x": 1, **values}}


def stages(trial, outcome="trained", stage="teacher", key="k"):
    records = {stage: {"key": key, "outcome": outcome, "seconds": 1.0}}
    return {"kind": "trial_stages", "trial": trial, "stages": records}


def report(trial, epoch, value=0.5):
    return {"kind": "trial_report", "trial": trial, "epoch": epoch, "metrics": {"dev/f": value}}


def ended(trial, state="completed", epoch=1, value=0.5, **fields):
    event = {"kind": "trial_ended", "trial": trial, "state": state, "epoch": epoch, **fields}
    return event | {"objectives": [value]}


def whole(trial, epochs=4):
    """A trial that completed."""
    return [
        suggested(trial),
        *(report(trial, epoch) for epoch in range(1, epochs + 1)),
        ended(trial),
    ]


def messages(failures):
    return [(failure.trial, failure.message) for failure in failures]


def test_a_sound_sweep_passes():
    lines = sweep(*whole(0), *whole(1))
    assert checks.check_trials(lines, 2) == []
    assert checks.check_epochs(lines) == []
    assert checks.check_same(lines, lines) == []


@pytest.mark.parametrize(
    ("lines", "trial", "output"),
    [
        (sweep(*whole(1)), None, "without [0]"),
        (sweep(*whole(0), suggested(0), *whole(1)), 0, "2 trial_suggested"),
        (sweep(*whole(0), suggested(1)), 1, "0 trial_ended"),
        (sweep(*whole(0), ended(0), *whole(1)), 0, "2 trial_ended"),
        (sweep(*whole(0), report(0, 5), *whole(1)), 0, "1 lines after its end"),
        (sweep(*whole(0), report(1, 1), *whole(1)), 1, "something before it began"),
        (sweep(*whole(0), *whole(1))[:-1], None, "not closed as finished"),
    ],
)
def test_trials_that_do_not_begin_and_end_once_are_seen(lines, trial, output):
    found = messages(checks.check_trials(lines, 2))
    assert any(who == trial and output in message for who, message in found), found


@pytest.mark.parametrize(
    ("events", "output"),
    [
        ([report(0, 1), report(0, 3), ended(0, "stopped")], "epoch 3 follows 1"),
        ([report(0, 2), report(0, 1), ended(0, "stopped")], "epoch 2 follows 0"),
        ([report(0, 1), report(0, 1, 0.6), ended(0, "stopped")], "repeated with other metrics"),
        ([report(0, 1), ended(0)], "completed with epoch 1 of 4"),
        ([*(report(0, e) for e in range(1, 5)), ended(0, value=0.7)], "not that of the chosen"),
    ],
)
def test_reports_that_are_not_whole_are_seen(events, output):
    found = messages(checks.check_epochs(sweep(suggested(0), *events)))
    assert any(output in message for _, message in found), found


def test_a_stage_that_was_trained_twice_is_seen():
    twice = sweep(suggested(0), stages(0), suggested(1), stages(1))
    assert messages(checks.check_stages(twice)[0]) == [(None, "teacher k was trained 2 times")]
    assert checks.check_stages(twice, [("teacher", "k")])[0] == []
    shared = sweep(suggested(0), stages(0), suggested(1), stages(1, "reused"))
    assert checks.check_stages(shared) == ([], {})
    assert checks.check_stages(sweep(suggested(0), stages(0, "reused"))) == ([], {"teacher": 1})


def test_a_trial_that_fails_is_excused_by_kills_of_its_work_alone():
    lines = sweep(suggested(0), ended(0, "failed", message="its worker died"))
    times = [lines[1]["time"]] * 4
    work = [{"kind": "fusion", "time": time} for time in times]
    assert checks.check_ends(lines, work, 3)[0] == []
    assert len(checks.check_ends(lines, work[:3], 3)[0]) == 1
    restarted = [*work[:3], {"kind": "driver", "time": times[0]}, *work[:1]]
    assert len(checks.check_ends(lines, restarted, 3)[0]) == 1


@pytest.mark.parametrize(
    ("changed", "output"),
    [
        ([suggested(0, x=2), *whole(0)[1:]], "values differ"),
        ([*whole(0)[:-2], report(0, 4, 0.5000000001), ended(0)], "reports differ"),
        ([*whole(0)[:-1], ended(0, epoch=2)], "end differ"),
        ([suggested(0), stages(0), *whole(0)[1:]], "keys differ"),
    ],
)
def test_sweeps_that_differ_are_seen(changed, output):
    assert messages(checks.check_same(sweep(*changed), sweep(*whole(0)))) == [(0, output)]


ASHA = {"kind": "asha", "grace_period": 1, "reduction_factor": 2, "epochs": 4}


def test_asha_is_recomputed_from_all_reports():
    """Rungs at 1, 2 and 4: trial 1 is below trial 0 at the first."""
    good = [suggested(0), *(report(0, epoch, 0.9) for epoch in range(1, 5)), ended(0, value=0.9)]
    right = sweep(*good, suggested(1), report(1, 1, 0.5), ended(1, "stopped"), **ASHA)
    assert checks.check_asha(right) == []
    went_on = sweep(*good, *whole(1), **ASHA)
    assert messages(checks.check_asha(went_on)) == [
        (
            1,
            "must stop at epoch 1 (0.5 at rung 1 with cutoff 0.9 of 1), but is completed "
            "with epoch 4",
        )
    ]
    better = sweep(*good, suggested(1), report(1, 1, 0.95), ended(1, "stopped"), **ASHA)
    assert messages(checks.check_asha(better)) == [
        (1, "was stopped, which no event before epoch 1 explains")
    ]


def test_a_torn_last_line_is_no_line(tmp_path):
    path = tmp_path / "ledger.jsonl"
    path.write_text('{"kind": "sweep_opened"}\n{"kind": "sweep_cl')
    assert checks.read_lines(path) == [{"kind": "sweep_opened", "line": 1}]
