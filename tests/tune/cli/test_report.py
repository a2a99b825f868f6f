"""`magtkd report`: what it writes, and what bad input gets."""

import re
from pathlib import Path

import pytest

from magtkd.cli import run_app
from tune.cli import app
from tune.config import SweepConfig
from tune.ledger import SweepLayout, SweepOpened, TrialEnded, TrialStatus, TrialSuggested
from tune.ledger import open_ledger as new_ledger


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("toy", "other"):
        tree = {
            "name": name,
            "data": {"synthetic": {"num_dialogues": 11, "mean_length": 3}},
            "space": {"fusion.dropout": {"float": [0.0, 0.9]}},
        }
        config = SweepConfig.model_validate(tree).model_dump(mode="json")
        with new_ledger(SweepLayout.of("magtkd-results", name)) as ledger:
            ledger.append(SweepOpened(name=name, config=config, tracked=False))
            for number in range(3):
                ledger.append(TrialSuggested(trial=number, values={"fusion.dropout": number / 10}))
                state, objectives = TrialStatus.COMPLETED, [number / 10]
                ended = TrialEnded(trial=number, state=state, epoch=1, objectives=objectives)
                ledger.append(ended)
    return tmp_path


@pytest.fixture
def call(capsys):
    def run(*arguments):
        code = run_app(app, ["report", *arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_the_page_is_written_here_and_again(call, folder):
    for _ in range(2):
        code, out, err = call("toy")
        assert (code, err) == (0, "")
        assert out.startswith("report-toy.html: ")
        assert out.count("\n") == 1  # the sweep is not recorded in MLflow
    page = Path("report-toy.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "Sweep toy" in page
    assert sorted(path.name for path in folder.iterdir()) == ["magtkd-results", "report-toy.html"]


def test_several_sweeps_are_one_page(call):
    assert call("toy", "other", "--out", "pages/both.html")[0] == 0
    assert "2 sweeps compared" in Path("pages/both.html").read_text()


def test_figures_are_written_beside_it(call):
    code, out, _ = call("toy", "--figures", "figures")
    assert code == 0
    names = {path.name for path in Path("figures").iterdir()}
    assert {"best-so-far.pdf", "best-so-far.svg"} <= names
    assert f"figures: {len(names)} files" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["toj"], "sweep 'toj': not found in .*; did you mean 'toy'?"),
        (["toy", "--storage", "nowhere"], "sweep 'toy': there is no folder .*; give its --storage"),
        (["../toy"], "sweep '../toy': not a name; use letters"),
        (["toy", "toy"], "sweep 'toy': given twice; name each once"),
        (["toy", "--out", "notes.txt"], "--out notes.txt: exists, and `magtkd report` did not"),
        (["toy", "--out", "magtkd-results"], "magtkd-results: cannot write: it is a folder"),
        (["toy", "--out", "notes.txt/page.html"], "notes.txt/page.html: cannot write: .*; choose"),
        (["toy", "--figures", "notes.txt"], "--figures notes.txt: cannot write: .*; name another"),
        (["toy", "--watch", "--out", "x.html"], "--watch: serves the page and writes nothing"),
        ([], "[Mm]issing argument .*; see `magtkd report --help`"),
    ],
)
def test_bad_input_gets_one_line_with_the_way_out(call, folder, arguments, message):
    (folder / "notes.txt").write_text("mine")
    code, _, err = call(*arguments)
    assert code == 2
    assert err.count("\n") == 1
    assert re.match(f"magtkd: {message}", err), err
    assert (folder / "notes.txt").read_text() == "mine"


def test_without_an_event_there_is_no_sweep(call, folder):
    (folder / "magtkd-results/sweeps/begun").mkdir()
    assert "sweep 'begun': has not begun" in call("begun")[2]
