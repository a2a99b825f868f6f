"""`magtkd table` without Ray: what it would train, what it refuses, what it reads and reveals."""

import io

import pyarrow.compute as pc
import pytest
import yaml
from rich.console import Console

from magtkd.cli import run_app
from magtkd.config import SyntheticConfig
from magtkd.data import make_synthetic, write_parquet
from magtkd.pipeline import StageRecord, run_chain
from magtkd.store import Store
from tests.tune.cli.test_confirm import SCORES, write_confirmation, write_trials
from tests.tune.cli.test_confirm import TREE as CONFIRMED
from tune.cli import app
from tune.config import SweepConfig, SweepOptions, load_table
from tune.driver import build_table
from tune.driver.table import Rows, _group
from tune.ledger import (
    StagesRecorded,
    SweepClosed,
    SweepEnd,
    SweepLayout,
    SweepOpened,
    TestRevealed,
    TrialEnded,
    TrialStatus,
    TrialSuggested,
    open_ledger,
    read_events,
    read_sweep,
)

STAGE = {"epochs": 1, "hidden_dim": 8}
CORPUS = {"num_dialogues": 20, "mean_length": 4, "num_emotions": 2}
CONFIG = {
    "data": {"synthetic": CORPUS},
    "teacher": STAGE,
    "audio": STAGE,
    "video": STAGE,
    "fusion": STAGE | {"num_heads": 2},
}
TREE = {
    "name": "paper",
    "seeds": 2,
    "reference": "MAGT",
    "data": {"SYN": {}},
    "rows": [
        {"name": "MAGT", "config": "config.yaml"},
        {"name": "without", "baseline": "no_distillation"},
        {"name": "deep", "config": "config.yaml", "set": {"fusion.depth": 2}},
    ],
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def write(folder):
    """Writes the table's file and the configuration's; the table."""

    def run(config=None, **tree):
        (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG | (config or {})))
        (folder / "table.yaml").write_text(yaml.safe_dump(TREE | tree, sort_keys=False))
        return load_table("table.yaml")

    return run


@pytest.fixture
def refused(capsys):
    def run(expected=2):
        code = run_app(app, ["table", "table.yaml", "--no-tracking"])
        captured = capsys.readouterr()
        assert (code, captured.out) == (expected, "")
        assert captured.err.startswith("magtkd: ")
        assert captured.err.count("\n") == 1
        return captured.err.removeprefix("magtkd: ").strip()

    return run


def group_of(spec, data="SYN"):
    return _group(spec, data, Rows(spec, "magtkd-results"), SweepOptions())


def write_ledger(group, table="paper", state=TrialStatus.COMPLETED):
    """What a driver would have left: all trainings of a data set."""
    store, done = Store("magtkd-results"), set()
    with open_ledger(group.layout) as ledger:
        ledger.append(
            SweepOpened(
                name=group.layout.name,
                config=group.sweep.model_dump(mode="json"),
                fingerprint=group.source.fingerprint,
                tracked=False,
                table=table,
            )
        )
        for candidate in group.candidates.values():
            if candidate.name in done:
                continue
            number = len(done)
            done.add(candidate.name)
            run_chain(candidate.config(group.sweep.base), store)
            keys = candidate.plan(group.sweep.base, group.source).keys
            stages = {stage: StageRecord(key, "trained", 1.0) for stage, key in keys.items()}
            ledger.append(
                TrialSuggested(trial=number, values=candidate.values, seed=candidate.seed)
            )
            ledger.append(StagesRecorded(trial=number, stages=stages))
            ledger.append(TrialEnded(trial=number, state=state, message="why", objectives=[0.5]))
        ledger.append(SweepClosed(reason=SweepEnd.FINISHED))


def reveals(layout):
    return [event for event in read_events(layout.ledger) if isinstance(event, TestRevealed)]


# --- what it trains ---------------------------------------------------------------------------


def test_rows_are_values_and_seeds_and_dev_stays(write):
    group = group_of(write())
    base = group.sweep.base
    assert list(group.candidates) == [
        (row, seed) for seed in (1, 2) for row in ("MAGT", "without", "deep")
    ]
    assert group.candidates["MAGT", 1].values == {}
    assert group.candidates["deep", 2].values == {"fusion.depth": 2}
    config = group.candidates["without", 2].config(base)
    assert (config.audio.distill, config.video.distill) == (None, None)
    assert [config.seed_of(stage) for stage in ("data", "teacher", "fusion")] == [0, 2, 2]


def test_each_data_set_has_its_own_configuration_and_table(write, folder):
    path = folder / "other.parquet"
    write_parquet(make_synthetic(SyntheticConfig(num_dialogues=10)), path)
    spec = write(
        data={"SYN": {}, "OTHER": "other.parquet"},
        rows=[
            {"name": "MAGT", "config": "config.yaml"},
            {"name": "one", "config": {"OTHER": "config.yaml"}, "set": {"fusion.depth": 2}},
        ],
    )
    one, other = (group_of(spec, data) for data in spec.data)
    assert (one.rows, other.rows) == (["MAGT"], ["MAGT", "one"])
    assert (other.sweep.base.data.path, other.sweep.base.data.synthetic) == (str(path), None)
    assert one.source.fingerprint != other.source.fingerprint


def write_sweep(name="search", scores=(0.5, 0.75)):
    layout = SweepLayout.of("magtkd-results", name)
    config = SweepConfig.model_validate(CONFIG | {"name": name})
    with open_ledger(layout) as ledger:
        ledger.append(SweepOpened(name=name, config=config.model_dump(mode="json"), tracked=False))
        for number, score in enumerate(scores):
            ledger.append(TrialSuggested(trial=number, values={"fusion.depth": 1 + number}))
            ledger.append(TrialEnded(trial=number, state=TrialStatus.COMPLETED, objectives=[score]))
        ledger.append(SweepClosed(reason=SweepEnd.FINISHED))
    return layout


def test_a_sweep_that_was_not_confirmed_is_its_best_on_dev_and_that_is_said(write):
    write_sweep()
    spec = write(rows=[{"name": "MAGT", "sweep": "search"}, TREE["rows"][1]])
    rows = Rows(spec, "magtkd-results")
    group = _group(spec, "SYN", rows, SweepOptions())
    assert group.sweep.base.fusion.depth == 2
    assert rows.origins == ["trial 1 of sweep search, its best on dev; it was not confirmed."]


def test_a_sweep_that_was_confirmed_is_its_choice(write):
    layout = SweepLayout.of("magtkd-results", "toy")
    config = SweepConfig.model_validate(CONFIRMED)
    with open_ledger(layout) as ledger:
        opened = SweepOpened(name="toy", config=config.model_dump(mode="json"), sweep_id="s1")
        ledger.append(opened)
        write_trials(ledger, SCORES)
    write_confirmation(layout)
    row = {"name": "MAGT", "sweep": "toy"}
    spec = write(rows=[row], data={"SYN": {"synthetic": CONFIRMED["data"]["synthetic"]}})
    rows = Rows(spec, "magtkd-results")
    group = _group(spec, "SYN", rows, SweepOptions())
    # Trial 1 was the best of the sweep, and trial 2 is the confirmed one.
    assert group.sweep.base.fusion.learning_rate == 0.003
    assert rows.origins == ["trial 2 of sweep toy, chosen by its confirmation."]
    # What the confirmation has trained with these seeds is what the table needs.
    state = read_sweep(layout.confirmation(1))
    mine = group.candidates["MAGT", 1].plan(group.sweep.base, group.source)
    trials = [one for one in state.trials.values() if one.suggested.seed == 1]
    keys = [one.candidate.plan(state.sweep.base, group.source).fusion_key for one in trials]
    assert mine.fusion_key in keys


def test_rows_that_train_the_same_are_named(write):
    group = group_of(write(rows=[TREE["rows"][0], {"name": "b", "baseline": "no_prompt"}]))
    assert group.warnings == (
        "row 'b': trains the same as row 'MAGT', since what differs has no effect",
    )


# --- what it refuses --------------------------------------------------------------------------


def test_a_sweep_without_a_completed_trial_is_refused(write, refused):
    write_sweep(scores=())
    write(rows=[{"name": "MAGT", "sweep": "search"}])
    assert refused(1).startswith("row 'MAGT': sweep 'search': ")


def test_a_sweep_that_does_not_exist_is_refused(write, refused):
    write_sweep()
    write(rows=[{"name": "MAGT", "sweep": "serch"}])
    assert refused().endswith("did you mean 'search'?")


def test_a_table_without_test_is_refused(write, refused, folder):
    table = make_synthetic(SyntheticConfig(num_dialogues=10))
    is_other = pc.not_equal(table["split"], "test")
    write_parquet(table.filter(is_other), folder / "notest.parquet")
    write(data={"SYN": "notest.parquet"})
    assert "has no test split with labels, on which rows could be compared; give" in refused()


@pytest.mark.parametrize(
    ("tree", "match"),
    [
        ({"metrics": ["f1/joy", "f1/jo"]}, "metrics: 'f1/jo': SYN has no label 'jo'"),
        (
            {"rows": [TREE["rows"][0] | {"set": {"fusion.dept": 2}}]},
            "row 'MAGT': fusion.dept: unknown key; did you mean 'depth'?",
        ),
        (
            {"rows": [TREE["rows"][0] | {"set": {"seeds.fusion": 2}}]},
            "row 'MAGT': seeds.fusion is 2, so that all seeds train the same; set it to null",
        ),
        (
            {
                "rows": [
                    *TREE["rows"],
                    TREE["rows"][0] | {"name": "b", "set": {"data.synthetic.num_dialogues": 9}},
                ]
            },
            "row 'b', SYN: reads another table than the rows before it; give the path in data.SYN",
        ),
        (
            {
                "rows": [{"name": "MAGT", "config": {"SYN": "config.yaml"}}],
                "data": {"SYN": {}, "B": {}},
            },
            "table 'paper': data B: the reference 'MAGT' has nothing for it",
        ),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_trained(write, refused, folder, tree, match):
    write(**tree)
    assert match in refused()
    assert not (folder / "magtkd-results").exists()


# --- what it reads ----------------------------------------------------------------------------


def test_what_exists_is_read_and_revealed_once(write, capsys, folder):
    spec = write()
    group = group_of(spec)
    write_ledger(group)
    assert reveals(group.layout) == []
    for _ in range(2):
        assert run_app(app, ["table", "table.yaml", "--out", "out"]) == 0
        out = capsys.readouterr().out
        assert "Revealed on test so far: 3 configurations in 6 trainings, on " in out
        found = [(event.trial, event.row) for event in reveals(group.layout)]
        assert found == [
            (0, "MAGT"),
            (3, "MAGT"),
            (1, "without"),
            (4, "without"),
            (2, "deep"),
            (5, "deep"),
        ]
    assert (folder / "out" / "table.md").read_text() == out
    names = {path.name for path in (folder / "out").iterdir()}
    assert names == {"table.md", "table.tex", "table.csv", "table.json"}


def test_the_figures_are_the_revealed_scores(write):
    spec = write()
    group = group_of(spec)
    write_ledger(group)
    table = build_table(spec, SweepOptions(tracking_uri=""), Console(file=io.StringIO()))
    for row in group.rows:
        scores = [event.test for event in reveals(group.layout) if event.row == row]
        for metric in ("accuracy", "weighted_f1"):
            values = table.cells[row, "SYN", metric].values
            assert values == pytest.approx([getattr(one, metric) for one in scores])


def test_a_row_that_failed_has_no_figure_and_is_not_revealed(write, capsys):
    group = group_of(write())
    write_ledger(group, state=TrialStatus.DIVERGED)
    assert run_app(app, ["table", "table.yaml"]) == 1
    out = capsys.readouterr().out
    assert "MAGT, SYN: 2 of 2 seeds did not complete, seed 1 diverged: why; it has no" in out
    assert reveals(group.layout) == []


def test_a_missing_artifact_reveals_nothing(write, refused, folder):
    group = group_of(write())
    write_ledger(group)
    plan = group.candidates["deep", 2].plan(group.sweep.base, group.source)
    for path in (folder / "magtkd-results" / "artifacts" / "fusion" / plan.fusion_key).iterdir():
        path.unlink()
    message = refused(1)
    assert message.startswith("row 'deep': ")
    assert message.endswith("give the table another name, which trains what is missing")
    assert reveals(group.layout) == []


def test_its_ledger_is_no_sweep_to_resume_confirm_or_select_from(write, capsys):
    write_ledger(group_of(write()))
    for arguments in (
        ["sweep", "--resume", "paper-SYN"],
        ["confirm", "paper-SYN"],
        ["best", "paper-SYN", "--reveal-test"],
    ):
        assert run_app(app, arguments) == 2
        assert "has the trainings of table 'paper'" in capsys.readouterr().err


def test_a_sweep_of_that_name_is_not_taken_for_the_table(write, refused):
    write_ledger(group_of(write()), table=None)
    assert "exists already, and is not of table 'paper'; give the table another" in refused()
