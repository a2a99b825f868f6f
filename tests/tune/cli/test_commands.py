"""The command line without Ray: what is shown, and what bad input gets."""

import importlib.metadata
import json
import os

import pytest
import yaml

from magtkd.config import load_config
from magtkd.metrics import Scores
from magtkd.pipeline import StageRecord
from tune.cli.options import check_alone
from tune.config import SweepConfig
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
    read_sweep,
)

SWEEP = {
    "name": "toy",
    "data": {"synthetic": {"num_dialogues": 11, "mean_length": 3}},
    "space": {"fusion.dropout": {"float": [0.0, 0.9]}},
}
KEYS = {"sweep", "trial", "state", "values", "base", "changes", "epoch", "objectives"}
KEYS |= {"dev", "test", "stages"}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(SWEEP))
    return tmp_path


@pytest.fixture
def refused(call, folder):
    """Runs what is wrong: exit code 2, one line, nothing written. Gives the line."""

    def run(*arguments, expected=2):
        before = sorted(folder.rglob("*"))
        code, out, err = call(*arguments)
        assert (code, out) == (expected, "")
        assert err.startswith("magtkd: ")
        assert err.count("\n") == 1
        assert sorted(folder.rglob("*")) == before
        return err.removeprefix("magtkd: ").strip()

    return run


def dev(value):
    return Scores(value, value, {"joy": value})


@pytest.fixture
def swept(folder):
    """A sweep with three completed trials, of which the second is best, and one that failed."""
    layout = SweepLayout(folder / "magtkd-results", "toy")
    with open_ledger(layout) as ledger:
        config = SweepConfig.model_validate(SWEEP).model_dump(mode="json")
        ledger.append(SweepOpened(name="toy", config=config, versions={"torch": "2.13.0"}))
        for number, value in enumerate([0.25, 0.75, 0.5, None]):
            values = {"fusion.dropout": number / 10}
            ledger.append(TrialSuggested(trial=number, values=values))
            stages = {"fusion": StageRecord(f"key{number}", "trained", 1.0)}
            ledger.append(StagesRecorded(trial=number, stages=stages))
            ended = TrialEnded(trial=number, state=TrialStatus.FAILED, message="teacher: broken")
            if value is not None:
                ended = TrialEnded(
                    trial=number,
                    state=TrialStatus.COMPLETED,
                    epoch=2,
                    dev=dev(value),
                    objectives=[value],
                )
            ledger.append(ended)
        ledger.append(SweepClosed(reason=SweepEnd.FINISHED))
    return layout


# --- looking at a sweep -----------------------------------------------------------------------


def test_trials_as_json(call, swept):
    code, out, err = call("trials", "toy", "--format", "json")
    assert (code, err) == (0, "")
    rows = json.loads(out)
    assert [row["trial"] for row in rows] == [0, 1, 2, 3]
    assert all(set(row) == KEYS for row in rows)
    assert rows[1] == {
        "sweep": "toy",
        "trial": 1,
        "state": "completed",
        "values": {"fusion.dropout": 0.1},
        "base": None,
        "changes": {},
        "epoch": 2,
        "objectives": {"dev/weighted_f1": 0.75},
        "dev": dev(0.75).to_json(),
        "test": None,
        "stages": {"fusion": "key1"},
    }
    assert (rows[3]["state"], rows[3]["dev"]) == ("failed", None)


def test_trials_as_a_table_and_as_csv(call, swept):
    code, table, _ = call("trials", "toy")
    assert code == 0
    assert len(table.splitlines()) == 5
    assert "75.00" in table
    code, lines, _ = call("trials", "toy", "--format", "csv")
    assert code == 0
    header = "sweep,trial,state,epoch,objectives.dev/weighted_f1,values.fusion.dropout,dev.accuracy"
    assert lines.splitlines()[0].startswith(header)
    assert len(lines.splitlines()) == 5


def test_best_is_one_object_and_the_top_ones_a_list(call, swept):
    code, out, _ = call("best", "toy", "--json")
    assert code == 0
    one = json.loads(out)
    assert set(one) == KEYS
    assert one["trial"] == 1
    code, out, _ = call("best", "toy", "--json", "--top", "2")
    assert code == 0
    assert [row["trial"] for row in json.loads(out)] == [1, 2]


def test_the_best_configuration_is_exported(call, swept, folder):
    code, out, err = call("best", "toy", "--json", "--export", "new/best.yaml")
    assert code == 0
    assert json.loads(out)["trial"] == 1
    assert "magtkd train new/best.yaml" in err
    config = load_config(folder / "new/best.yaml")
    assert config.fusion.dropout == 0.1
    assert config.name == "toy"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--trial", "1"), "--trial 1: names the trial to export or reveal; add --export"),
        (("--trial", "2", "--export", "x.yaml"), "--trial 2: not among the best; name one of 1"),
        (("--top", "2", "--trial", "2", "--reveal-test"), "--trial 2: test is revealed of the"),
    ],
)
def test_a_trial_is_named_for_a_reason(refused, swept, options, message):
    assert message in refused("best", "toy", *options)


def test_the_second_best_can_be_exported(call, swept, folder):
    assert call("best", "toy", "--top", "2", "--trial", "2", "--export", "x.yaml")[0] == 0
    assert load_config(folder / "x.yaml").fusion.dropout == 0.2


def test_help_lists_sweep_and_train_first(call):
    code, out, _ = call("--help")
    assert code == 0
    names = ("sweep", "train", "confirm", "trials", "best", "status", "sync", "doctor", "import")
    places = [out.index(f"│ {name} ") for name in names]
    assert places == sorted(places)
    assert "Example" in out


@pytest.mark.parametrize(
    "command",
    [
        *("sweep", "train", "confirm", "trials", "best", "status", "sync", "doctor", "import"),
        *("data inspect", "data convert", "data synth", "config show", "config schema"),
    ],
)
def test_the_help_of_each_command_ends_with_examples(call, command):
    code, out, _ = call(*command.split(), "--help")
    assert code == 0
    last = out[out.rindex("Example") :]
    assert f"magtkd {command}" in " ".join(last.split())
    assert "─" not in last


def test_the_version(call):
    code, out, _ = call("--version")
    assert (code, out) == (0, f"magtkd {importlib.metadata.version('magtkd')}\n")


def test_the_schema_of_a_sweep_has_its_sections(call):
    plain, sweep = (json.loads(call("config", "schema", *one)[1]) for one in ((), ("--sweep",)))
    new = set(sweep["properties"]) - set(plain["properties"])
    assert new == {"objective", "search", "scheduler", "space"}
    assert set(plain["properties"]) < set(sweep["properties"])


def test_show_prints_resolved_values_with_their_meaning(call):
    code, out, _ = call("config", "show", "toy.yaml", "search")
    assert code == 0
    lines = out.splitlines()
    assert lines[0].split()[:2] == ["search.sampler", '"tpe"']
    assert "How the next trial's values are" in out  # and the rest below it
    code, out, _ = call("config", "show", "toy.yaml", "fusion.depth", "--json")
    assert json.loads(out) == {"fusion.depth": 1}


def test_show_of_a_section_that_is_not_there(refused):
    assert "did you mean 'fusion'" in refused("config", "show", "toy.yaml", "fusoin")


# --- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["trials", "best"])
def test_an_unknown_sweep(refused, swept, command):
    assert "'toj'" in refused(command, "toj")
    assert "toy" in refused(command, "toj")


def test_an_unknown_sweep_cannot_be_resumed(refused, swept):
    assert "'toj'" in refused("sweep", "--resume", "toj")


def test_an_unknown_format(refused, swept):
    line = refused("trials", "toy", "--format", "xml")
    assert "'xml'" in line
    assert "table, csv, json, parquet" in line


def test_a_sweep_without_a_completed_trial_has_no_best(refused, folder):
    layout = SweepLayout(folder / "magtkd-results", "toy")
    with open_ledger(layout) as ledger:
        config = SweepConfig.model_validate(SWEEP).model_dump(mode="json")
        ledger.append(SweepOpened(name="toy", config=config))
    assert "no trial has completed" in refused("best", "toy", expected=1)


def test_a_sweep_name_that_exists_offers_to_resume(refused, swept):
    before = read_sweep(swept).trials
    assert "--resume toy" in refused("sweep", "toy.yaml")
    assert read_sweep(swept).trials == before


def test_neither_a_file_nor_a_name(refused):
    assert "--resume NAME" in refused("sweep")
    assert "--resume-or-start" in refused("sweep", "toy.yaml", "--resume", "toy")


def test_a_finished_sweep_is_not_started_again(call, swept):
    before = read_sweep(swept)
    code, out, _ = call("sweep", "toy.yaml", "--resume-or-start")
    assert code == 0
    assert "next: magtkd best toy" in out
    assert vars(read_sweep(swept)) == vars(before)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("search.num_trials=7", "search.num_trials: 7, but sweep 'toy' was begun with 20; "),
        ("space.fusion.dropout.float=[0,0.5]", "space.fusion.dropout.float: [0.0, 0.5], but "),
        ("fusion.depth=3", "fusion.depth: 3, but sweep 'toy' was begun with 1; "),
    ],
)
def test_a_sweep_is_not_resumed_by_a_file_with_other_settings(refused, swept, override, words):
    line = refused("sweep", "toy.yaml", override, "--resume-or-start")
    assert line.startswith(words)
    given = f" {override}" if override.startswith("search.") else ""
    assert line.endswith(f"continue that with --resume toy{given}, or give this one another name")


def test_resume_or_start_is_for_a_file(refused, swept):
    assert "give a sweep file" in refused("sweep", "--resume", "toy", "--resume-or-start")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["space=null"], ["space", "tpe", "grid"]),
        (
            ["objective.metric=dev/weightedf1"],
            ["objective", "'dev/weightedf1'", "'dev/weighted_f1'"],
        ),
        (["objective.metric=test/accuracy"], ["'test/accuracy'", "sealed", "'dev/accuracy'"]),
        (["objective.metric=dev/f1/jojo"], ["'dev/f1/jojo'", "joy"]),
        (["fusion.dropuot=0.5"], ["fusion.dropuot", "dropout"]),
        (["fusion.dropout=1.5"], ["fusion.dropout", "1.5"]),
        (["space={fusion.dropuot: {float: [0, 1]}}"], ["fusion.dropuot", "fusion.dropout"]),
        (["space={fusion.dropout: {float: [0.1, 1.0]}}"], ["fusion.dropout", "1"]),
        (["search.sampler=tpx"], ["search.sampler", "tpx", "tpe"]),
        (["data.synthetic=null", "data.path=none.parquet"], ["none.parquet"]),
    ],
)
def test_a_sweep_that_is_wrong(refused, overrides, words):
    line = refused("sweep", "toy.yaml", *overrides)
    for word in words:
        assert word in line


def test_a_sweep_file_that_is_not_there(refused):
    assert "toj.yaml" in refused("sweep", "toj.yaml")


def test_a_sweep_file_that_is_not_yaml(refused, folder):
    (folder / "bad.yaml").write_text("space: [")
    assert "bad.yaml" in refused("sweep", "bad.yaml")


def test_a_storage_that_cannot_be_written(refused, folder):
    (folder / "file").write_text("")
    line = refused("sweep", "toy.yaml", "--storage", "file/inside")
    assert os.fspath(folder / "file") in line
    assert "--storage" in line


def test_an_unknown_option(refused):
    assert "--storrage" in refused("sweep", "toy.yaml", "--storrage", "x")


def test_an_export_replaces_only_an_export(call, swept, folder):
    (folder / "mine.yaml").write_text("name: mine\n")
    code, out, err = call("best", "toy", "--export", "mine.yaml")
    assert (code, out) == (2, "")
    assert "--export mine.yaml: exists, and `magtkd best` did not write it" in err
    assert (folder / "mine.yaml").read_text() == "name: mine\n"
    for _ in range(2):
        assert call("best", "toy", "--export", "best.yaml")[0] == 0


def test_parquet_is_not_written_to_a_terminal(refused, swept, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert refused("trials", "toy", "--format", "parquet").startswith("--format parquet: not for a")


def test_an_export_that_cannot_be_written(call, swept, folder):
    (folder / "file").write_text("")
    code, out, err = call("best", "toy", "--export", "file/best.yaml")
    assert (code, out) == (2, "")
    assert err.startswith("magtkd: file/best.yaml: cannot write: ")


def test_only_the_first_of_srun_s_tasks_drives(refused, monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "3")
    monkeypatch.setenv("SLURM_PROCID", "1")
    line = refused("sweep", "toy.yaml")
    assert "srun: started this 3 times" in line
    assert "give srun -N1 -n1 --overlap" in line
    # A batch script is its job's task 0, and one task is no other's second.
    check_alone({"SLURM_NTASKS": "3", "SLURM_PROCID": "0"})
    check_alone({"SLURM_NTASKS": "1", "SLURM_PROCID": "0"})
    check_alone({})
