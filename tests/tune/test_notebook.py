"""Sweeps from Python."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from magtkd.cli import run_app
from magtkd.errors import SweepError
from magtkd.metrics import Scores
from magtkd.pipeline import Outcome, StageRecord
from tune.cli import app
from tune.ledger import (
    EpochReported,
    StagesRecorded,
    SweepLayout,
    SweepOpened,
    TrialEnded,
    TrialStatus,
    TrialSuggested,
    open_ledger,
)
from tune.notebook import Sweep, _load


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    """Two completed trials and one that failed."""
    monkeypatch.chdir(tmp_path)
    with open_ledger(SweepLayout(tmp_path / "magtkd-results", "toy")) as ledger:
        config = {"name": "toy", "space": {"fusion.depth": {"int": [1, 3]}}}
        ledger.append(SweepOpened(name="toy", config=config))
        for number, score in enumerate((0.5, 0.6, None)):
            values = {"fusion.depth": number + 1}
            ledger.append(TrialSuggested(trial=number, values=values))
            stages = {"teacher": StageRecord("a" * 32, Outcome.TRAINED, 2.0)}
            ledger.append(StagesRecorded(trial=number, stages=stages))
            if score is None:
                failed = TrialEnded(trial=number, state=TrialStatus.FAILED, message="no memory")
                ledger.append(failed)
                continue
            metrics: dict[str, float | None] = {"dev/weighted_f1": score}
            ledger.append(EpochReported(trial=number, epoch=1, metrics=metrics))
            ended = TrialEnded(
                trial=number,
                state=TrialStatus.COMPLETED,
                dev=Scores(0.7, score, {"joy": 0.4}),
                objectives=[score],
                epoch=1,
            )
            ledger.append(ended)
    return Sweep("toy")


def test_trials_as_a_table(sweep: Sweep) -> None:
    frame = sweep.trials()
    assert list(frame.index) == [0, 1, 2]
    assert list(frame["state"]) == ["completed", "completed", "failed"]
    assert list(frame["values.fusion.depth"]) == [1, 2, 3]
    assert list(frame["seconds.teacher"]) == [2.0] * 3
    assert frame.loc[1, "dev/weighted_f1"] == 0.6
    assert frame.loc[1, "dev/f1/joy"] == 0.4
    assert frame.loc[2, "message"] == "no memory"
    assert (frame["ended"] >= frame["suggested"]).all()
    assert list(sweep.curves()["dev/weighted_f1"]) == [0.5, 0.6]
    assert repr(sweep) == "Sweep('toy', 'magtkd-results'): 2 completed, 1 failed"


def test_the_best_configuration_and_the_study(sweep: Sweep) -> None:
    assert sweep.best().fusion.depth == 2
    assert sweep.best(0).fusion.depth == 1
    with pytest.raises(SweepError, match="--trial 2: not among the best"):
        sweep.best(2)
    study = sweep.study()
    assert study.best_params == {"fusion.depth": 2}
    assert [one.state.name for one in study.trials] == ["COMPLETE", "COMPLETE", "FAIL"]


def test_a_sweep_that_is_not_there(sweep: Sweep) -> None:
    with pytest.raises(SweepError, match=r"sweep 'toi': not found in .* did you mean 'toy'"):
        Sweep("toi")


def test_a_mapping_is_read_as_a_file_of_the_working_directory(sweep: Sweep, tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("fusion: {depth: 2}\ndata: {path: table.parquet}\n")
    tree = {"extends": "base.yaml", "space": {"fusion.dropout": {"float": [0.1, 0.5]}}}
    loaded = _load(tree, ["name=other"])
    assert (loaded.name, loaded.fusion.depth) == ("other", 2)
    assert Path(str(loaded.data.path)).resolve() == tmp_path / "table.parquet"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base.yaml", "magtkd-results"]


def test_a_database_for_optuna_dashboard(sweep: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_app(app, ["study", "toy", "--out", "sqlite:///study.db"]) == 0
    assert "study 'toy', 3 trials" in capsys.readouterr().out
    study = optuna.load_study(study_name="toy", storage="sqlite:///study.db")
    assert study.best_value == 0.6
    for url, message in (
        ("sqlite:///study.db", "has a study 'toy' already; name another database"),
        ("nothing", "write sqlite:///FILE"),
    ):
        assert run_app(app, ["study", "toy", "--out", url]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert "Traceback" not in error
