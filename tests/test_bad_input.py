"""What a user can get wrong, through the real command line: one line on stderr, exit code 2, and
nothing written."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from magtkd.cli import run_app
from magtkd.config import Config, dump_yaml
from tune.cli import app
from tune.ledger import SweepLayout, SweepOpened, open_ledger

SWEEP = """
extends: base.yaml
name: mine
objective: {metric: dev/weighted_f1, mode: max}
search: {sampler: random, num_trials: 2, max_concurrent: 1, seed: 0}
space:
  fusion.depth: {int: [1, 2]}
"""
Refused = Callable[..., str]


@pytest.fixture(autouse=True)
def folder(
    tmp_path: Path,
    tiny_config: Callable[..., Config],
    tiny_table: pa.Table,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """The working directory, with a configuration, a table and a sweep that are all right."""
    monkeypatch.chdir(tmp_path)
    pq.write_table(tiny_table, "table.parquet")
    config = tiny_config({"data.synthetic": None, "data.path": str(tmp_path / "table.parquet")})
    Path("base.yaml").write_text(dump_yaml(config), encoding="utf-8")
    Path("sweep.yaml").write_text(SWEEP, encoding="utf-8")
    return tmp_path


@pytest.fixture
def refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Runs a command line that must be refused, and returns the line."""

    def run(*arguments: str, leaves: tuple[str, ...] = (), code: int = 2) -> str:
        before = _listing(folder)
        found = run_app(app, list(arguments))
        printed = capsys.readouterr()
        assert found == code, printed.err
        assert printed.err.startswith("magtkd: ")
        assert printed.err.count("\n") == 1, printed.err
        assert printed.err.endswith("\n")
        assert "Traceback" not in printed.err + printed.out
        new = [name for name in _listing(folder) if name not in before]
        assert not [name for name in new if not name.startswith(leaves or "\0")]
        return printed.err.removeprefix("magtkd: ").removesuffix("\n")

    return run


def _listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def write_table(name: str, table: pa.Table, **replaced: Any) -> str:
    for column, values in replaced.items():
        table = table.set_column(table.schema.get_field_index(column), column, values)
    pq.write_table(table, name)
    return f"data.path={name}"


# --- files ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["train"], "nope.yaml: cannot read the configuration: No such file .*; give the path"),
        (["sweep"], "nope.yaml: cannot read the configuration: No such file .*; give the path"),
        (["sweep", "--dry-run"], "nope.yaml: cannot read the configuration: No such file"),
        (["data", "inspect"], "nope.yaml: there is no such file; give the path of the table"),
    ],
)
def test_missing_file(refused: Refused, command: list[str], message: str) -> None:
    assert re.match(message, refused(*command, "nope.yaml"))


@pytest.mark.parametrize("command", ["train", "sweep"])
def test_unreadable_configuration(refused: Refused, command: str) -> None:
    Path("binary.yaml").write_bytes(os.urandom(16) + b"\xff\xfe")
    assert "binary.yaml: cannot read the configuration: it is not UTF-8" in refused(
        command, "binary.yaml"
    )
    assert ".: cannot read the configuration: Is a directory; give" in refused(command, ".")
    assert "table.parquet" in refused(command, "table.parquet")


@pytest.mark.parametrize("command", ["train", "sweep"])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fusion:\n\tdepth: 2", "bad.yaml, line 2: not valid YAML: found character"),
        ("fusion: {depth: 2", "bad.yaml, line 2: not valid YAML"),
        ("seed: 1\nseed: 2", "bad.yaml, line 2: not valid YAML: found duplicate key seed"),
        ("- fusion", "bad.yaml: the top level is not a mapping; write sections such as"),
        ("42", "bad.yaml: the top level is not a mapping; write sections such as"),
        ("extends: bad.yaml", "bad.yaml: extends itself: "),
        ("extends: nope.yaml", "bad.yaml: extends: there is no file nope.yaml"),
        (
            "extends: base.yaml\nfusion:",
            "bad.yaml: fusion: must be a section of keys and values, got null",
        ),
    ],
)
def test_broken_configuration(refused: Refused, command: str, text: str, message: str) -> None:
    Path("bad.yaml").write_text(text)
    assert message in refused(command, "bad.yaml")


def test_empty_configuration(refused: Refused) -> None:
    Path("empty.yaml").write_text("")
    assert "data.path: names no table; set data.path=FILE" in refused("train", "empty.yaml")


# --- tables -----------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [["train", "base.yaml"], ["sweep", "sweep.yaml"]])
def test_missing_table(refused: Refused, folder: Path, command: list[str]) -> None:
    line = refused(*command, "data.path=nope.parquet")
    assert line == f"{folder}/nope.parquet: there is no such file; give the path of the table"


@pytest.mark.parametrize("command", [["train", "base.yaml"], ["sweep", "sweep.yaml"]])
def test_a_parquet_that_is_not_one(refused: Refused, command: list[str]) -> None:
    line = refused(*command, "data.path=sweep.yaml")
    assert "sweep.yaml: not a Parquet file; write one with the columns split, " in line
    Path("empty.parquet").write_bytes(b"")
    assert "empty.parquet: an empty file; write one" in refused(*command, "data.path=empty.parquet")


@pytest.mark.parametrize("command", [["train", "base.yaml"], ["sweep", "sweep.yaml"]])
def test_wrong_columns(refused: Refused, tiny_table: pa.Table, command: list[str]) -> None:
    table = tiny_table.rename_columns({"label": "emotion"})
    line = refused(*command, write_table("wrong.parquet", table))
    assert re.search(r"wrong\.parquet: lacks the column label; it has .*emotion.*; rename", line)
    ids = pa.array([f"u{n}" for n in range(tiny_table.num_rows)])
    line = refused(*command, write_table("types.parquet", tiny_table, utterance_id=ids))
    assert "types.parquet: column utterance_id: its type is string; cast it to int32" in line


@pytest.mark.parametrize("command", [["train", "base.yaml"], ["sweep", "sweep.yaml"]])
def test_nan_features(refused: Refused, tiny_table: pa.Table, command: list[str]) -> None:
    values = np.ones((tiny_table.num_rows, 7), np.float32)
    values[3, 2] = np.nan
    column = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), 7)
    line = refused(*command, write_table("nan.parquet", tiny_table, audio_features=column))
    assert re.search(r"nan\.parquet: .*audio_features", line)
    assert ";" in line


def test_empty_table(refused: Refused, tiny_table: pa.Table) -> None:
    assert "none.parquet" in refused(
        "train", "base.yaml", write_table("none.parquet", tiny_table.slice(0, 0))
    )


def test_a_folder_without_a_table(refused: Refused) -> None:
    Path("empty").mkdir()
    line = refused("train", "base.yaml", "data.path=empty")
    assert "a folder without train_sent_emo.csv and without .parquet files; give a" in line


def test_nothing_to_train_on(refused: Refused, tiny_table: pa.Table) -> None:
    bare = tiny_table.select(["split", "dialogue_id", "utterance_id", "speaker", "text", "label"])
    line = refused("train", "base.yaml", write_table("bare.parquet", bare))
    assert "teacher.encoder is 'features', but the table has no text_features" in line


# --- keys and values --------------------------------------------------------------------------


@pytest.mark.parametrize("command", [["train", "base.yaml"], ["sweep", "sweep.yaml"]])
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("fusion.dept=2", r"\.yaml: fusion\.dept: unknown key; did you mean 'depth'\?"),
        ("fusion.depth", r"override 'fusion\.depth': write it as key=value"),
        ("fusion.epochs=-3", r"\.yaml: fusion\.epochs: must be >= 1, got -3$"),
        ("teacher.dropout=1.5", r"\.yaml: teacher\.dropout: must be < 1, got 1\.5$"),
        ("fusion.num_heads=4", r"\.yaml: fusion: num_heads is 4, which does not divide .*, 6; ch"),
        ("teacher.prompt_length=3", r"prompt_length is 3, but encoder 'features' has no prompt; s"),
        ("seed=abc", r"\.yaml: seed: must be an integer, got 'abc'$"),
        ("fusion.depth=[1", r"override 'fusion\.depth=\[1': the value is not valid YAML; quote"),
        ("name=a/b", r"\.yaml: name: must be a string that matches .*, got 'a/b'$"),
        ("data.synthetic.seed=1", r"data: path and synthetic exclude each other; set one of them"),
    ],
)
def test_override(refused: Refused, command: list[str], override: str, message: str) -> None:
    assert re.search(message, refused(*command, override))


def test_sweep_file_to_train(refused: Refused) -> None:
    line = refused("train", "sweep.yaml")
    assert re.match(r"sweep\.yaml: .*: unknown key; this is a sweep file, for `magtkd sweep`", line)


def test_teacher_that_is_not_there(refused: Refused) -> None:
    line = refused("train", "base.yaml", "teacher.encoder=./no-model", leaves=("magtkd-results",))
    assert "teacher.encoder: cannot load './no-model' (there is no such folder); give" in line


# --- a diverged run ---------------------------------------------------------------------------


def test_diverged_train(refused: Refused, folder: Path) -> None:
    line = refused(
        "train",
        "base.yaml",
        "fusion.learning_rate=1e30",
        "fusion.gradient_norm=1e30",
        leaves=("magtkd-results",),
        code=1,
    )
    assert re.match(
        r"fusion: diverged: the loss was nan in epoch 1, step \d+; lower fusion\.learning_rate",
        line,
    )
    results = folder / "magtkd-results"
    assert sorted(os.listdir(results / "artifacts")) == ["audio", "data", "teacher", "video"]
    # On a busy machine a stage may have been saved on the way; nothing of that is left.
    files = {path.relative_to(results).parts[0] for path in results.rglob("*") if path.is_file()}
    assert files == {"artifacts"}
    assert not os.listdir(results / "tmp")


# --- storage ----------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [["train", "base.yaml"], ["sweep", "sweep.yaml"]])
@pytest.mark.parametrize(
    ("storage", "message"),
    [
        ("base.yaml/below", "base.yaml/below: cannot be written: .*Not a directory; choose anoth"),
        ("base.yaml", "base.yaml: cannot be written: .*Not a directory; choose another --storage"),
        (
            "nope://bucket",
            "storage 'nope://bucket': not a folder or a pyarrow.fs address: .*; give",
        ),
    ],
)
def test_storage(refused: Refused, command: list[str], storage: str, message: str) -> None:
    assert re.search(message, refused(*command, "--storage", storage))


# --- sweeps -----------------------------------------------------------------------------------


def sweep_with(**replaced: str) -> None:
    text = SWEEP
    for section, line in replaced.items():
        text = re.sub(rf"(?m)^{section}:.*(\n  .*)*", f"{section}: {line}", text)
    Path("sweep.yaml").write_text(text)


@pytest.mark.parametrize("options", [(), ("--dry-run",)])
@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"space": "{fusion.dept: {int: [1, 2]}}"}, r"space: .*fusion\.dept.*'fusion\.depth'"),
        ({"space": "{}", "search": "{sampler: tpe}"}, r"space: it is empty, so sampler 'tpe' has"),
        ({"space": "{}"}, r"space: it is empty, so sampler 'random' has nothing to choose; name"),
        ({"objective": "{metric: dev/f2}"}, r"objective\.0\.metric: 'dev/f2': no such metric"),
        ({"objective": "{metric: test/accuracy}"}, r"test metrics stay sealed.*'dev/accuracy'"),
        (
            {"objective": "{metric: dev/f1/joyy}\nfusion: {select: f1/joyy}"},
            r"objective\.metric: .* has no label 'joyy'",
        ),
        ({"objective": "{metric: dev/loss}"}, r"fusion\.select: 'weighted_f1', but the objective"),
        (
            {"objective": "{metrc: dev/loss}"},
            r"objective\.0\.metrc: unknown key; did you mean 'met",
        ),
        ({"space": "{fusion.depth: {int: [0, 2]}}"}, r"fusion\.depth.*\b0\b"),
        ({"space": "{fusion.depth: {int: [3, 1]}}"}, r"fusion\.depth"),
        ({"space": "{fusion.depth: {integer: [1, 2]}}"}, r"fusion\.depth.*integer"),
        (
            {"search": "{sampler: tpa}"},
            r"search\.sampler: 'tpa': no such sampler.*'tpe'",
        ),
        ({"search": "{num_trials: 0}"}, r"search\.num_trials: must be >= 1, got 0$"),
        ({"scheduler": "{kind: asha}\nzzz: 1"}, r"zzz: unknown key"),
    ],
)
def test_sweep(
    refused: Refused, replaced: dict[str, str], message: str, options: tuple[str, ...]
) -> None:
    if "scheduler" in replaced:
        Path("sweep.yaml").write_text(SWEEP + f"scheduler: {replaced['scheduler']}\n")
    else:
        sweep_with(**replaced)
    assert re.search(message, refused("sweep", "sweep.yaml", *options))


def test_neither_file_nor_name(refused: Refused) -> None:
    assert "give either a sweep file, or --resume NAME" in refused("sweep")
    line = refused("sweep", "sweep.yaml", "--resume", "mine")
    assert line.startswith("sweep.yaml: --resume mine needs no file")
    line = refused("sweep", "--resume", "mine", "search.num_trials=3")
    assert "sweep 'mine': there is no folder" in line


@pytest.mark.parametrize("command", [["best"], ["trials"], ["sweep", "--resume"]])
def test_unknown_sweep(refused: Refused, command: list[str]) -> None:
    assert "mine" in refused(*command, "mine")


def test_unknown_format(refused: Refused) -> None:
    assert "--format 'xml': use one of table, csv" in refused("trials", "mine", "--format", "xml")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian", "base.yaml"], "No such command 'trian'"),
        (["train"], "Missing argument 'CONFIG'; see `magtkd train --help`"),
        (["train", "base.yaml", "--epochs", "3"], "No such option.*--epochs"),
        (["best", "mine", "--top", "0"], "--top"),
        (["data", "synth"], "Missing option '--out'"),
        (["data", "synth", "--out", "x.parquet", "num_dialogs=9"], "did you mean 'num_dialogues'"),
        (["data", "synth", "--out", "x.parquet", "num_dialogues"], "write it as key=value"),
        (["data", "synth", "--out", "base.yaml/x.parquet"], "base.yaml/x.parquet: cannot be writ"),
    ],
)
def test_arguments(refused: Refused, arguments: list[str], message: str) -> None:
    assert re.search(message, refused(*arguments))


# --- what needs the cluster to tell -----------------------------------------------------------


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    from tune.cluster import ray_cluster

    with ray_cluster():
        yield


@pytest.mark.ray
@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("options", [(), ("--dry-run",)])
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("resources.teacher.memory=900TB", r"resources\.teacher\.memory: asks for .*, but the cl"),
        ("resources.fusion.gpu=99", r"resources\.fusion\.gpu: asks for 99 GPU, but the cluster"),
        ("resources.audio.cpu=5000", r"resources\.audio\.cpu: asks for 5000 CPU, but the cluster"),
    ],
)
def test_resources(refused: Refused, override: str, message: str, options: tuple[str, ...]) -> None:
    line = refused("sweep", "sweep.yaml", override, *options)
    assert re.search(message, line)
    assert "; lower it, start Ray on a larger node, or name in resources.node_types" in line


@pytest.mark.ray
@pytest.mark.usefixtures("cluster")
def test_a_name_that_is_taken(refused: Refused, folder: Path) -> None:
    with open_ledger(SweepLayout(folder / "magtkd-results", "mine")) as ledger:
        ledger.append(SweepOpened(name="mine", config={}))
    line = refused("sweep", "sweep.yaml")
    assert re.match(r"sweep 'mine': exists already in .*; continue it with --resume mine, ", line)
