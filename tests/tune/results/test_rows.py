"""Rows, ranking, cost and formats of a sweep's trials."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from magtkd.errors import StorageError, SweepError
from magtkd.metrics import Scores
from magtkd.pipeline import StageRecord
from tune.ledger import (
    StagesRecorded,
    SweepClosed,
    SweepEnd,
    SweepOpened,
    SweepState,
    TestRevealed,
    TrialChanged,
    TrialEnded,
    TrialStatus,
    TrialSuggested,
)
from tune.results import TrialRow, best, sweep_cost, trial_rows, write_trials

ONE = {"metric": "dev/weighted_f1", "mode": "max"}


def scores(value: float) -> Scores:
    return Scores(value + 0.1, value, {"joy": value})


def make_state(objective: Any, ends: dict[int, dict[str, Any]]) -> SweepState:
    """A sweep whose trials ended so; an empty end is a running trial."""
    state = SweepState()
    config = {"objective": objective}
    opened = SweepOpened(time=1, sweep_id="i", name="mosi", config=config)
    state.apply(opened)
    for number, end in ends.items():
        values = {"fusion.depth": number, "teacher.encoder": "tiny"}
        state.apply(TrialSuggested(time=2, trial=number, values=values))
        if end:
            state.apply(TrialEnded(time=3, trial=number, **end))
    return state


def completed(*objectives: float | None) -> dict[str, Any]:
    return {
        "state": TrialStatus.COMPLETED,
        "epoch": 3,
        "dev": scores(objectives[0] or 0),
        "objectives": list(objectives),
    }


def recorded(trial: int, **stages: tuple[Any, ...]) -> StagesRecorded:
    records = {stage: StageRecord(*fields) for stage, fields in stages.items()}
    return StagesRecorded(time=4, trial=trial, stages=records)


def test_rows_have_the_promised_keys_in_order_of_number() -> None:
    state = make_state(ONE, {2: {}, 0: completed(0.5)})
    state.apply(recorded(0, teacher=("a1", "trained", 5.0)))
    rows = trial_rows(state)
    assert [row.trial for row in rows] == [0, 2]
    assert rows[0].to_json() == {
        "sweep": "mosi",
        "trial": 0,
        "state": "completed",
        "values": {"fusion.depth": 0, "teacher.encoder": "tiny"},
        "base": None,
        "changes": {},
        "epoch": 3,
        "objectives": {"dev/weighted_f1": 0.5},
        "dev": scores(0.5).to_json(),
        "test": None,
        "stages": {"teacher": "a1"},
    }
    assert (rows[1].state, rows[1].dev, rows[1].stages) == ("running", None, {})
    assert rows[1].objectives == {"dev/weighted_f1": None}


def test_best_ranks_completed_trials_and_ties_by_number() -> None:
    ends = {
        0: completed(0.5),
        1: {**completed(0.9), "state": TrialStatus.STOPPED},
        2: completed(0.7),
        3: completed(0.7),
        4: completed(None),
        5: {},
    }
    state = make_state(ONE, ends)
    assert [row.trial for row in best(state)] == [2]
    assert [row.trial for row in best(state, top=9)] == [2, 3, 0]
    lowest = make_state({"metric": "dev/loss", "mode": "min"}, ends)
    assert [row.trial for row in best(lowest)] == [0]


def test_test_metrics_do_not_rank() -> None:
    state = make_state(ONE, {0: completed(0.5), 1: completed(0.7)})
    state.apply(TestRevealed(time=5, trial=0, test=scores(0.9)))
    assert best(state)[0].trial == 1
    assert trial_rows(state)[0].test == scores(0.9)


def test_without_a_completed_trial_the_states_are_counted() -> None:
    state = make_state(ONE, {0: {}, 1: {"state": TrialStatus.FAILED}, 2: {}})
    with pytest.raises(SweepError, match="no trial has completed: 1 failed, 2 running; wait"):
        best(state)
    state.apply(SweepClosed(time=9, reason=SweepEnd.INTERRUPTED))
    with pytest.raises(SweepError, match="2 unfinished; resume it with --resume mosi"):
        best(state)


points = st.tuples(st.integers(0, 4), st.integers(0, 4))


@given(st.lists(points, min_size=1, max_size=23))
def test_pareto_front_is_what_nothing_dominates(found: list[tuple[int, int]]) -> None:
    objectives = [ONE, {"metric": "dev/loss", "mode": "min"}]
    state = make_state(objectives, {n: completed(*point) for n, point in enumerate(found)})
    expected = [
        number
        for number, (gain, loss) in enumerate(found)
        if not any(
            other != (gain, loss) and other[0] >= gain and other[1] <= loss for other in found
        )
    ]
    assert [row.trial for row in best(state)] == expected
    assert [row.trial for row in best(state, top=1)] == expected[:1]


def test_cost_counts_what_reuse_saved() -> None:
    state = make_state(ONE, {n: {} for n in range(3)})
    state.apply(recorded(0, teacher=("a1", "trained", 5.0), fusion=("f0", "trained", 2.0)))
    state.apply(recorded(1, teacher=("a1", "reused", 0.1), fusion=("f1", "trained", 3.0)))
    # From an earlier sweep: once with what its training took, once without.
    state.apply(recorded(2, teacher=("b2", "reused", 0.1, 7.0), fusion=("f9", "reused", 0.1)))
    cost = sweep_cost(state)
    assert cost["teacher"].to_json() == {
        "num_trained": 1,
        "num_stopped": 0,
        "num_reused": 2,
        "seconds_trained": 5.0,
        "seconds_saved": 12.0,
        "num_unknown": 0,
    }
    assert (cost["fusion"].seconds_trained, cost["fusion"].num_unknown) == (5.0, 1)


@pytest.fixture
def rows() -> list[TrialRow]:
    state = make_state(ONE, {0: completed(0.5), 1: {}})
    state.trials[1].values["fusion.depth"] = "deep"
    state.trials[1].values["audio.distill"] = None
    state.apply(recorded(0, teacher=("a1", "trained", 5.0)))
    return trial_rows(state)


def test_json_is_the_rows(rows: list[TrialRow]) -> None:
    stream = io.StringIO()
    write_trials(rows, "json", stream)
    assert json.loads(stream.getvalue()) == [row.to_json() for row in rows]


def test_csv_has_a_column_per_leaf(rows: list[TrialRow], tmp_path: Path) -> None:
    write_trials(rows, "csv", tmp_path / "trials.csv")
    with (tmp_path / "trials.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert (first["values.fusion.depth"], second["values.fusion.depth"]) == ("0", "deep")
    assert (first["dev.per_class.joy"], second["dev.per_class.joy"]) == ("0.5", "")
    assert (first["stages.teacher"], first["test.accuracy"]) == ("a1", "")
    assert "values.audio.distill" in first


def test_parquet_has_the_columns_of_csv(rows: list[TrialRow], tmp_path: Path) -> None:
    write_trials(rows, "parquet", tmp_path / "trials.parquet")
    write_trials(rows, "csv", tmp_path / "trials.csv")
    table = pq.read_table(tmp_path / "trials.parquet")
    header = (tmp_path / "trials.csv").read_text().splitlines()[0]
    assert table.column_names == header.split(",")
    assert table["trial"].to_pylist() == [0, 1]
    assert table["dev.weighted_f1"].to_pylist() == [0.5, None]
    # Two kinds of value in one column: both as JSON.
    assert table["values.fusion.depth"].to_pylist() == ["0", '"deep"']
    assert table["test.accuracy"].to_pylist() == [None, None]


def test_table_shows_every_value_uncut_in_a_pipe(rows: list[TrialRow]) -> None:
    for number in range(17):
        rows[0].values[f"fusion.a_long_name_{number}"] = 0.101 + number / 1000
    stream = io.StringIO()
    write_trials(rows, "table", stream)
    header, first, *_ = stream.getvalue().splitlines()
    assert "fusion.a_long_name_16" in header
    assert "dev weighted F1" in header
    assert "test" not in header
    assert all(f"{0.101 + number / 1000:.4g}" in first for number in range(17))
    assert "50.00" in first


@pytest.mark.parametrize(
    ("objective", "value", "header", "cell"),
    [
        ("dev/loss", 0.71234, "dev loss", "0.7123"),
        ("dev/f1/joy", 0.71234, "dev F1 of joy", "71.23"),
        ("dev/accuracy", 0.71234, "dev accuracy", "71.23"),
        ("dev/weighted_f1", 0.71234, "dev weighted F1", "71.23"),
    ],
)
def test_what_ranks_is_shown_first(objective: str, value: float, header: str, cell: str) -> None:
    end = completed(value)
    if objective == "dev/accuracy":
        end["dev"] = Scores(value, 0.5, {})
    rows = best(make_state({"metric": objective}, {0: end, 1: completed(None)}))
    stream = io.StringIO()
    write_trials(rows, "table", stream)
    headers, line = stream.getvalue().splitlines()
    assert headers.split("state")[1].strip().startswith(header)
    assert headers.count(header) == 1
    assert line.split()[2] == cell
    stream = io.StringIO()
    write_trials(rows, "csv", stream)
    (row,) = csv.DictReader(io.StringIO(stream.getvalue()))
    assert (row[f"objectives.{objective}"], row["epoch"]) == (str(value), "3")


def test_values_that_changed_in_training_are_those_of_the_score() -> None:
    state = make_state(ONE, {0: {}, 1: {}})
    state.apply(
        TrialChanged(
            time=5,
            trial=1,
            epoch=4,
            values={"fusion.depth": 1, "fusion.dropout": 0.3, "teacher.encoder": "tiny"},
            base={"fusion.depth": 1, "fusion.dropout": 0.25, "teacher.encoder": "tiny"},
            changes={4: {"dropout": 0.3}},
        )
    )
    state.apply(TrialEnded(time=6, trial=1, **completed(0.5)))
    plain, changed = trial_rows(state)
    assert (plain.base, plain.changes) == (None, {})
    assert changed.values["fusion.dropout"] == 0.3
    tree = json.loads(json.dumps(changed.to_json()))
    assert (tree["base"]["fusion.dropout"], tree["changes"]) == (0.25, {"4": {"dropout": 0.3}})
    stream = io.StringIO()
    write_trials([plain, changed], "table", stream)
    assert "0.25 -> 0.3" in stream.getvalue()
    assert stream.getvalue().count("completed, changed") == 1
    stream = io.StringIO()
    write_trials([plain, changed], "csv", stream)
    first, second = csv.DictReader(io.StringIO(stream.getvalue()))
    assert (first["base.fusion.dropout"], first["changes"]) == ("", "{}")
    assert (second["values.fusion.dropout"], second["base.fusion.dropout"]) == ("0.3", "0.25")
    assert json.loads(second["changes"]) == {"4": {"dropout": 0.3}}


def test_tied_values_share_a_column_of_the_table(rows: list[TrialRow]) -> None:
    for name in ("audio", "video"):
        rows[0].values[f"{name}.distill.temperature"] = 2.5
    stream = io.StringIO()
    write_trials(rows, "table", stream)
    assert "audio.distill.temperature = video" in stream.getvalue().splitlines()[0]
    assert stream.getvalue().count("2.5") == 1


def test_no_rows_are_written_as_none(tmp_path: Path) -> None:
    for name in ("table", "csv", "json", "parquet"):
        write_trials([], name, tmp_path / name)
    assert pq.read_table(tmp_path / "parquet").num_rows == 0
    assert json.loads((tmp_path / "json").read_text()) == []


def test_what_cannot_be_written_is_named(rows: list[TrialRow], tmp_path: Path) -> None:
    with pytest.raises(SweepError, match="format 'xml': choose one of table, csv, json, parquet"):
        write_trials(rows, "xml")  # type: ignore[arg-type]
    with pytest.raises(StorageError, match="cannot write: No such file"):
        write_trials(rows, "csv", tmp_path / "none" / "trials.csv")


def test_a_null_that_was_chosen_is_not_an_empty_cell() -> None:
    searched = [{"audio.distill": None}, {"audio.distill": '{"rank": 2}'}, {}]
    rows = [
        TrialRow(
            sweep="a",
            trial=number,
            state=TrialStatus.FAILED,
            values=values,
            base=None,
            changes={},
            epoch=None,
            objectives={},
            dev=None,
            test=None,
            stages={},
        )
        for number, values in enumerate(searched)
    ]
    table, sheet = io.StringIO(), io.StringIO()
    write_trials(rows, "table", table)
    write_trials(rows, "csv", sheet)
    assert [line.split()[2:] for line in table.getvalue().splitlines()[1:]] == [
        ["null"],
        ['{"rank":', "2}"],
        [],
    ]
    cells = [row["values.audio.distill"] for row in csv.DictReader(io.StringIO(sheet.getvalue()))]
    assert cells == ["null", '{"rank": 2}', ""]
