"""Descriptions: what a sweep looks for and how a trial went, in a line."""

from __future__ import annotations

from typing import Any

from magtkd.pipeline import StageRecord
from tune.ledger import SweepState, TrialState, TrialStatus
from tune.space import Candidate
from tune.tracking.notes import sweep_headline, sweep_note, trial_note

NONE = Candidate(values={})
SUGGESTED: dict[str, Any] = {
    "number": 3,
    "suggested": NONE,
    "suggested_time": 1000,
    "candidate": NONE,
}


def test_a_sweep_has_its_search_and_its_space() -> None:
    state = SweepState()
    state.config = {
        "objective": [{"metric": "dev/loss", "mode": "min"}, {"metric": "dev/accuracy"}],
        "search": {"sampler": "nsga2", "num_trials": 7},
        "scheduler": {"kind": "fifo"},
        "space": {"fusion.depth": {"int": [1, 3]}, "fusion.model": {"choice": ["a|b"]}},
    }
    headline = (
        "objective: min dev/loss and max dev/accuracy, sampler: nsga2, scheduler: fifo, trials: 7"
    )
    assert sweep_headline(state) == headline
    assert sweep_note(state).splitlines() == [
        headline,
        "",
        "| searched | over |",
        "|---|---|",
        "| fusion.depth | int [1, 3] |",
        '| fusion.model | choice ["a\\|b"] |',
    ]


def test_a_trial_has_its_end_its_scores_and_its_stages() -> None:
    trial = TrialState(**SUGGESTED, state=TrialStatus.STOPPED, epoch=5)
    trial.stages = {
        "data": StageRecord("a", "reused", 0.0, 2.0),
        "teacher": StageRecord("b", "reused", 0.0, 5.25),
        "fusion": StageRecord("c", "stopped", 1.75),
    }
    assert trial_note(trial, {"dev/weighted_f1": 0.61803}) == (
        "stopped; best epoch 5: dev/weighted_f1 0.6180; trained fusion 1.8 s; "
        "reused data, teacher (saved 7.2 s)"
    )


def test_a_failed_trial_has_its_reason() -> None:
    trial = TrialState(**SUGGESTED, state=TrialStatus.DIVERGED, message="fusion: loss is nan")
    assert trial_note(trial, {}) == "diverged: fusion: loss is nan"
