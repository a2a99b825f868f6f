"""Ledgers of format 1, as they were before events had types and keys left out what is not read."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from magtkd.cli import run_app
from magtkd.store import Store
from tune.cli import app
from tune.config import SweepOptions
from tune.driver import resume_sweep
from tune.ledger import FORMAT, SweepEnd, SweepLayout, TrialStatus, read_events, read_sweep

LEDGERS = Path(__file__).parents[1] / "fixtures" / "ledgers_of_format_1"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(params=["before", "before-pbt"])
def layout(request: pytest.FixtureRequest, tmp_path: Path) -> SweepLayout:
    """A storage with one such ledger and nothing else: an interrupted sweep, or a population."""
    found = SweepLayout(tmp_path / "storage", request.param)
    found.folder.mkdir(parents=True)
    shutil.copyfile(LEDGERS / f"{found.name}.jsonl", found.ledger)
    return found


def test_it_is_shown(layout: SweepLayout, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("trials", "best", "status"):
        assert run_app(app, [command, layout.name, "--storage", str(layout.root)]) == 0
        shown = capsys.readouterr().out
        assert "completed" in shown
    assert layout.ledger.read_bytes() == (LEDGERS / f"{layout.name}.jsonl").read_bytes()


def test_it_is_sent_to_mlflow(layout: SweepLayout, check_agreement: Callable[..., Any]) -> None:
    assert run_app(app, ["sync", layout.name, "--storage", str(layout.root)]) == 0
    check_agreement(layout.root, layout.name)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_running")
@pytest.mark.parametrize("layout", ["before"], indirect=True)
def test_it_is_resumed(layout: SweepLayout, check_agreement: Callable[..., Any]) -> None:
    before = read_sweep(layout)
    unfinished = [number for number, trial in before.trials.items() if not trial.has_ended]
    assert (before.format, len(unfinished)) == (1, 2)
    # Of its artifacts one is left, without which the ledger would be one of another storage.
    left = Path(Store(layout.root).folder("data", before.trials[0].stages["data"].key))
    left.mkdir(parents=True)
    (left / "manifest.json").write_text("{}")
    resume_sweep(layout.name, SweepOptions(storage=str(layout.root)))
    state = check_agreement(layout.root, layout.name)
    assert (state.closed, state.format, len(state.trials)) == (SweepEnd.FINISHED, FORMAT, 12)
    assert state.count()[TrialStatus.RUNNING] == state.count()[TrialStatus.FAILED] == 0
    # What had ended is as it was, with the keys that it recorded.
    for number, trial in before.trials.items():
        if number not in unfinished:
            assert state.trials[number] == trial
    old = {record.key for trial in before.trials.values() for record in trial.stages.values()}
    new = [state.trials[number] for number in state.trials if number not in before.trials]
    trained = {
        record.key for trial in new for name, record in trial.stages.items() if name != "data"
    }
    assert not trained & old
    (line,) = [warning for warning in state.warnings if "format 1" in warning]
    assert "not ended (2)" in line
    # Once: a second resume has nothing to add.
    num_events = len(list(read_events(layout.ledger)))
    resume_sweep(layout.name, SweepOptions(storage=str(layout.root)))
    assert len(list(read_events(layout.ledger))) == num_events
