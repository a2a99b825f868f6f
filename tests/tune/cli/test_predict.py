"""`magtkd predict`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

import magtkd
from magtkd.cli import run_app
from magtkd.config import Config, dump_yaml, with_values
from magtkd.data import read_corpus
from magtkd.metrics import Scores
from magtkd.pipeline import Outcome, StageRecord, make_plan, run_chain, source_of
from magtkd.store import Store
from tune.cli import app
from tune.ledger import (
    StagesRecorded,
    SweepLayout,
    SweepOpened,
    TrialEnded,
    TrialStatus,
    TrialSuggested,
    open_ledger,
)


@pytest.fixture
def folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_config: Callable[..., Config]
) -> Path:
    """A trained configuration, a sweep of two trials, and conversations without labels."""
    monkeypatch.chdir(tmp_path)
    config, corpus = tiny_config(), read_corpus(tiny_config().data)
    Path("tiny.yaml").write_text(dump_yaml(config))
    table = corpus.table.filter(pc.equal(corpus.table["split"], "test"))
    pq.write_table(table.drop_columns(["split", "label"]), "new.parquet")
    store, source = Store("magtkd-results"), source_of(corpus)
    with open_ledger(SweepLayout(tmp_path / "magtkd-results", "toy")) as ledger:
        tree = config.model_dump(mode="json") | {
            "name": "toy",
            "space": {"fusion.dropout": {"float": [0.0, 0.5]}},
        }
        ledger.append(SweepOpened(name="toy", config=tree, fingerprint=source.fingerprint))
        for number, score in enumerate((0.5, 0.6)):
            values = {"fusion.dropout": 0.1 * (number + 1)}
            own = with_values(config, values)
            run_chain(own, store, warn=lambda line: None)
            ledger.append(TrialSuggested(trial=number, values=values))
            stages = {
                stage: StageRecord(key, Outcome.TRAINED, 1.0)
                for stage, key in make_plan(own, source).keys.items()
            }
            ledger.append(StagesRecorded(trial=number, stages=stages))
            ended = TrialEnded(
                trial=number,
                state=TrialStatus.COMPLETED,
                dev=Scores(0.7, score),
                objectives=[score],
                epoch=1,
            )
            ledger.append(ended)
    run_chain(config, store, warn=lambda line: None)
    return tmp_path


def test_a_configuration_and_a_sweep_s_best_trial_predict(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_app(app, ["predict", "tiny.yaml", "new.parquet", "--out", "one.parquet"]) == 0
    assert run_app(app, ["predict", "toy", "new.parquet", "--out", "best.csv"]) == 0
    assert "sweep 'toy': trial 1 predicts" in capsys.readouterr().err
    assert run_app(app, ["predict", "toy", "new.parquet", "--trial", "0"]) == 0
    captured = capsys.readouterr()
    assert "sweep 'toy': trial 0 predicts" in captured.err
    assert "probability" in captured.out
    one, best = pq.read_table("one.parquet"), pa_csv.read_csv("best.csv")
    new = pq.read_table("new.parquet")
    assert one.num_rows == best.num_rows == new.num_rows
    assert one.column_names == best.column_names
    assert not one["probability"].equals(best["probability"])
    assert magtkd.Predictor.__name__ == "Predictor"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tiny.yaml", "none.parquet"], "none.parquet: there is no such file"),
        (["none", "new.parquet"], "sweep 'none': not found in"),
        (["tiny.yaml", "new.parquet", "--trial", "1"], "is for a sweep, and tiny.yaml is a conf"),
        (["toy", "new.parquet", "--trial", "7"], "--trial 7: not among the best; name one of 0, 1"),
        (["tiny.yaml", "new.parquet", "--out", "x.txt"], "end it with .parquet or .csv"),
        (["tiny.yaml", "tiny.yaml"], "tiny.yaml: not a Parquet file"),
    ],
)
def test_what_is_wrong_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert run_app(app, ["predict", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
