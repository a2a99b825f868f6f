"""Sweeps that a budget ends, and that are given more."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from magtkd.pipeline import StageRecord
from tune.config import SweepConfig, SweepOptions
from tune.driver import resume_sweep, watch
from tune.ledger import (
    StagesRecorded,
    SweepChanged,
    SweepEnd,
    SweepLayout,
    SweepState,
    open_ledger,
    read_events,
)

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.usefixtures("ray_running"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

SPACE = {"teacher.dropout": {"float": [0.1, 0.5]}}
NUM_EPOCHS = 800


def resume(storage: Path, *overrides: str) -> tuple[SweepState, str]:
    shown = Console(file=io.StringIO(), width=200)
    options = SweepOptions(storage=str(storage))
    state = resume_sweep("toy", options, shown, overrides=overrides)
    return state, shown.file.getvalue()  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def cut(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_sweep: Callable[..., SweepConfig],
    run: Callable[..., SweepState],
) -> tuple[Path, SweepState]:
    """A sweep whose budget ends it in the middle of its first trials."""
    storage = tmp_path_factory.mktemp("storage")
    search = {"sampler": "random", "budget": {"stage_hours": 0.0002}}
    sweep = tiny_sweep("toy", SPACE, search=search, fusion={"epochs": NUM_EPOCHS})
    return storage, run(sweep, storage)


def test_what_a_budget_cuts_is_unfinished_and_saved(
    cut: tuple[Path, SweepState], check_agreement: Callable[..., Any]
) -> None:
    storage, state = cut
    assert (state.closed, state.why_closed) == (
        SweepEnd.FINISHED,
        "search.budget.stage_hours: 0.0002 h of training are over",
    )
    assert set(state.count()) == {"running"}
    check_agreement(storage, "toy")
    sessions = storage / "sessions/sweeps" / state.sweep_id
    reported = {str(number) for number, trial in state.trials.items() if trial.reports}
    assert reported <= {path.name for path in sessions.glob("*")}


@pytest.fixture(scope="module")
def extended(cut: tuple[Path, SweepState]) -> tuple[Path, SweepState]:
    storage, before = cut
    # Finished as it is, it stays so.
    assert resume(storage)[0].num_resumed == 0
    number = len(before.trials)
    state, _ = resume(storage, "search.budget.stage_hours=null", f"search.num_trials={number}")
    return storage, state


def test_more_of_the_budget_continues_what_was_cut(
    cut: tuple[Path, SweepState],
    extended: tuple[Path, SweepState],
    check_agreement: Callable[..., Any],
) -> None:
    (storage, before), (_, state) = cut, extended
    assert (state.closed, state.why_closed) == (SweepEnd.FINISHED, None)
    assert state.count() == {"completed": len(before.trials)}
    for number, trial in before.trials.items():
        reports = state.trials[number].reports
        assert reports[: len(trial.reports)] == trial.reports
        assert [report.epoch for report in reports] == list(range(1, NUM_EPOCHS + 1))
    layout = SweepLayout(storage, "toy")
    (changed,) = (one for one in read_events(layout.ledger) if isinstance(one, SweepChanged))
    assert changed.changes == {
        "search.num_trials": len(before.trials),
        "search.budget": {"hours": None, "stage_hours": None, "trials": None},
    }
    assert f"num_trials: {len(before.trials)}" in layout.sweep_file.read_text()
    assert not (storage / "sessions/sweeps" / state.sweep_id).exists()
    check_agreement(storage, "toy")


def test_no_stage_is_begun_that_would_not_end_in_time(
    extended: tuple[Path, SweepState], monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, before = extended
    # As if its teachers had taken half an hour.
    with open_ledger(SweepLayout(storage, "toy"), resume=True) as ledger:
        for number, trial in before.trials.items():
            teacher = StageRecord(trial.stages["teacher"].key, "trained", 1800.0)
            ledger.append(StagesRecorded(trial=number, stages={"teacher": teacher}))
    monkeypatch.setattr(watch, "INTERVAL_SECONDS", 0.2)
    number = len(before.trials)
    hours = 0.5 * number + 0.4
    state, shown = resume(
        storage, f"search.num_trials={number + 1}", f"search.budget.stage_hours={hours}"
    )
    assert state.why_closed == (
        "search.budget.stage_hours: no stage that is left would end within it"
    )
    assert f"{state.why_closed}: saving what runs" in shown
    assert state.count() == {"completed": number, "running": 1}
    assert "teacher" not in state.trials[number].stages
