"""What `magtkd sweep` shows at its end, and with which exit code, without starting anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from magtkd.cli import run_app
from magtkd.metrics import Scores
from magtkd.pipeline import StageRecord
from tune.cli import app
from tune.cli.sweep import _resume_command
from tune.config import SweepConfig, SweepOptions
from tune.ledger import (
    StagesRecorded,
    SweepClosed,
    SweepEnd,
    SweepLayout,
    SweepOpened,
    TrialEnded,
    TrialStatus,
    TrialSuggested,
    open_ledger,
)

CONFIG = SweepConfig.model_validate(
    {"name": "mosi", "space": {"fusion.dropout": {"float": [0.1, 0.5]}}}
).model_dump(mode="json")


def write_sweep(storage: Path, *ends: TrialStatus) -> None:
    with open_ledger(SweepLayout(storage, "mosi")) as ledger:
        ledger.append(SweepOpened(name="mosi", config=CONFIG))
        for number, end in enumerate(ends):
            ledger.append(TrialSuggested(trial=number, values={"fusion.dropout": 0.2}))
            stages = {"fusion": StageRecord(f"key{number}", "trained", 1.5)}
            ledger.append(StagesRecorded(trial=number, stages=stages))
            dev = {"dev": Scores(0.7, 0.6), "objectives": [0.6], "epoch": 1}
            is_completed = end == TrialStatus.COMPLETED
            ledger.append(TrialEnded(trial=number, state=end, **(dev if is_completed else {})))  # type: ignore[arg-type]
        ledger.append(SweepClosed(reason=SweepEnd.FINISHED))


FAILED, DIVERGED = TrialStatus.FAILED, TrialStatus.DIVERGED
STOPPED, COMPLETED = TrialStatus.STOPPED, TrialStatus.COMPLETED


@pytest.mark.parametrize(
    ("ends", "codes"),
    [
        ([COMPLETED, FAILED], {"sweep": 0, "best": 0}),
        ([FAILED, FAILED], {"sweep": 1, "best": 1}),
        ([DIVERGED, STOPPED], {"sweep": 1, "best": 1}),
        ([], {"sweep": 1, "best": 1}),
    ],
)
def test_the_exit_code_of_each_command(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    ends: list[TrialStatus],
    codes: dict[str, int],
) -> None:
    monkeypatch.chdir(tmp_path)
    storage = tmp_path / "a b"
    write_sweep(storage, *ends)
    shown = {}
    for command in ("sweep", "best", "trials", "status"):
        name = ["--resume", "mosi"] if command == "sweep" else ["mosi"]
        code = run_app(app, [command, *name, "--storage", str(storage)])
        assert code == codes.get(command, 0), command
        shown[command] = capsys.readouterr()
    out = shown["sweep"].out
    assert (f"next: magtkd best mosi --storage '{storage}'\n" in out) == (COMPLETED in ends)
    assert f"--backend-store-uri 'sqlite:///{storage}/mlflow.db'" in out
    # No table of costs where nothing was spent.
    assert ("seconds saved by reuse" in out) == bool(ends)
    assert shown["best"].err.count("\n") == (COMPLETED not in ends)


@pytest.mark.parametrize("address", [None, "10.0.0.1:6379"])
def test_a_sweep_is_resumed_where_it_ran(address: str | None) -> None:
    command = _resume_command("toy", SweepOptions(storage="a b", address=address))
    assert command == "magtkd sweep --resume toy --storage 'a b'" + (
        f" --address {address}" if address else ""
    )
