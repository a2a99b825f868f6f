from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from magtkd.cli import app, run_app, write_text
from magtkd.config import Config, dump_yaml, load_config
from magtkd.data import write_parquet
from magtkd.errors import ArtifactError, DivergedError, InputError, StorageLostError
from magtkd.store import Artifact, Store

STAGES = ("data", "teacher", "audio", "video", "fusion")
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def config_file(tmp_path: Path, tiny_config: Callable[..., Config]) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(dump_yaml(tiny_config({"name": "tiny"})), encoding="utf-8")
    return path


def test_train(tmp_path: Path, config_file: Path, capsys: Capture) -> None:
    command = ["train", str(config_file), "fusion.epochs=2", "--storage", str(tmp_path / "out")]
    assert run_app(app, [*command, "--json"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    result = json.loads(printed.out)
    assert result["name"] == "tiny"
    assert result["outcomes"] == dict.fromkeys(STAGES, "trained")
    assert set(result["dev"]) == {"accuracy", "weighted_f1", "macro_f1", "per_class"}
    (run,) = (tmp_path / "out/runs").iterdir()
    assert run.name == f"tiny-{result['stages']['fusion'][:12]}"
    resolved = load_config(run / "config.yaml")
    assert resolved == load_config(config_file, ["fusion.epochs=2"])
    assert json.loads((run / "result.json").read_text()) == result
    assert run_app(app, ["train", str(run / "config.yaml"), *command[3:], "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["outcomes"] == dict.fromkeys(STAGES, "reused")
    assert again["dev"] == result["dev"]


def test_train_prints_a_table(tmp_path: Path, config_file: Path, capsys: Capture) -> None:
    assert run_app(app, ["train", str(config_file), "--storage", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    for stage in STAGES:
        assert stage in printed.out
    assert "trained" in printed.out


def test_train_says_once_what_is_odd_about_the_table(
    tmp_path: Path, config_file: Path, tiny_table: pa.Table, capsys: Capture
) -> None:
    label = pc.if_else(pc.equal(tiny_table["utterance_id"], 1), None, tiny_table["label"])
    table = tiny_table.set_column(tiny_table.column_names.index("label"), "label", label)
    write_parquet(table, tmp_path / "odd.parquet")
    data = [f"data.path={tmp_path}/odd.parquet", "data.synthetic=null"]
    command = ["train", str(config_file), *data, "--storage", str(tmp_path / "out")]
    assert run_app(app, [*command, "--json"]) == 0
    lines = capsys.readouterr().err.splitlines()
    (line,) = [line for line in lines if "utterances have no label" in line]
    assert line.startswith("magtkd: warning: ")
    assert len(lines) == len(set(lines))


def test_train_in_the_default_folder(
    tmp_path: Path, config_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_app(app, ["train", config_file.name, "--json"]) == 0
    key = json.loads(capsys.readouterr().out)["stages"]["fusion"]
    assert Store(tmp_path / "magtkd-results").exists("fusion", key)


def test_a_damaged_artifact_is_said_and_trained_again(
    tmp_path: Path, config_file: Path, capsys: Capture
) -> None:
    command = ["train", str(config_file), "--storage", str(tmp_path / "out"), "--json"]
    assert run_app(app, command) == 0
    before = json.loads(capsys.readouterr().out)
    damaged = next((tmp_path / "out/artifacts/fusion").rglob("metrics.json"))
    damaged.write_text("{}")
    assert run_app(app, command) == 0
    out, error = capsys.readouterr()
    assert error.startswith(f"magtkd: warning: {damaged}: the file is damaged: 2 bytes")
    assert error.count("\n") == 1
    after = json.loads(out)
    assert after["dev"] == before["dev"]
    assert after["outcomes"]["fusion"] == "trained"


def test_synth_and_inspect(tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "toy.parquet"
    settings = ["num_dialogues=11", "num_emotions=3", "text_dim=7"]
    assert run_app(app, ["data", "synth", "--out", str(out), *settings]) == 0
    assert capsys.readouterr().out.endswith("utterances of 11 conversations\n")
    assert run_app(app, ["data", "inspect", str(out), "--json"]) == 0
    described: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert "7" in json.dumps(described)
    assert run_app(app, ["data", "inspect", str(out)]) == 0
    assert "neutral" in capsys.readouterr().out
    assert run_app(app, ["data", "synth", "--out", str(tmp_path / "other.parquet"), *settings]) == 0
    assert out.read_bytes() == (tmp_path / "other.parquet").read_bytes()


@pytest.mark.parametrize("command", ["data synth", "data convert ."])
def test_an_output_that_is_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for out in (".", ""):
        assert run_app(app, [*command.split(), "--out", out]) == 2
        line = "magtkd: .: cannot be written: it is a folder; name a file in it\n"
        assert capsys.readouterr().err == line
    with pytest.raises(InputError, match="cannot write: it is a folder; name a file in it"):
        write_text(Path(), "text")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("data convert x", "Missing option '--out'; see `magtkd data convert --help`"),
        ("data synt", "No such command 'synt'.*; see `magtkd data --help`"),
        (
            "--wrong",
            r"No such option: --wrong \(Possible options: --version\); see `magtkd --help`",
        ),
    ],
)
def test_complaints_name_the_help_that_helps(arguments: str, line: str, capsys: Capture) -> None:
    assert run_app(app, arguments.split()) == 2
    assert re.fullmatch(f"magtkd: {line}\n", capsys.readouterr().err)


def test_schema(capsys: Capture) -> None:
    assert run_app(app, ["config", "schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert set(schema["properties"]) == {"extends", *Config.model_fields}


def test_help_by_itself(capsys: Capture) -> None:
    assert run_app(app, ["--help"]) == 0
    assert "Train one configuration" in capsys.readouterr().out
    assert run_app(app, []) == 2
    printed = capsys.readouterr()
    assert "Train one configuration" in printed.out + printed.err
    assert "magtkd: ;" not in printed.err


@pytest.mark.parametrize(
    ("raised", "code", "line"),
    [
        (InputError("x: is\nwrong"), 2, "magtkd: x: is wrong\n"),
        (ArtifactError("x: damaged"), 1, "magtkd: x: damaged\n"),
        (
            DivergedError("fusion", 1, 2, float("inf")),
            1,
            "magtkd: fusion: diverged: the loss was inf in epoch 1, step 2; lower "
            "fusion.learning_rate or fusion.gradient_norm\n",
        ),
        (StorageLostError("x: gone", "come back"), 75, "magtkd: x: gone; come back\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_exit_codes(raised: BaseException, code: int, line: str, capsys: Capture) -> None:
    import typer

    failing = typer.Typer()

    @failing.command()
    def fail() -> None:
        raise raised

    assert run_app(failing, []) == code
    assert capsys.readouterr().err == line


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_signals_interrupt(number: signal.Signals) -> None:
    import typer

    # Processes that run tests beside others ignore Ctrl-C, and `run_app` leaves what is ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    waiting, handlers = typer.Typer(), {one: signal.getsignal(one) for one in signal.Signals}

    @waiting.command()
    def wait() -> None:
        signal.raise_signal(number)

    assert run_app(waiting, []) == 130
    assert {one: signal.getsignal(one) for one in signal.Signals} == handlers
    signal.signal(signal.SIGINT, before)


def test_interrupted_train(
    tmp_path: Path, config_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def interrupt(store: Store, artifact: Artifact) -> Artifact:
        if artifact.stage == "audio":
            raise KeyboardInterrupt
        return write(store, artifact)

    write = Store.write
    monkeypatch.setattr(Store, "write", interrupt)
    command = ["train", str(config_file), "--storage", str(tmp_path / "out"), "--json"]
    assert run_app(app, command) == 130
    message = "magtkd: interrupted; the same command continues from the last checkpoint\n"
    assert capsys.readouterr().err == message
    monkeypatch.undo()
    assert run_app(app, command) == 0
    outcomes = json.loads(capsys.readouterr().out)["outcomes"]
    assert [stage for stage in outcomes if outcomes[stage] == "reused"] == ["data", "teacher"]


def test_our_own_mistakes_are_not_hidden() -> None:
    import typer

    failing = typer.Typer()

    @failing.command()
    def fail() -> None:
        raise ZeroDivisionError("ours")

    with pytest.raises(ZeroDivisionError, match="ours"):
        run_app(failing, [])


def test_write_text(tmp_path: Path) -> None:
    write_text(tmp_path / "new/a.yaml", "one")
    write_text(tmp_path / "new/a.yaml", "two")
    assert (tmp_path / "new/a.yaml").read_text() == "two"
    with pytest.raises(InputError, match=r"new: cannot write: it is a folder; name a file"):
        write_text(tmp_path / "new", "three")
    with pytest.raises(InputError, match=r"b\.yaml: cannot write: .*; choose another file"):
        write_text(tmp_path / "new/a.yaml/b.yaml", "three")
    assert [path.name for path in tmp_path.rglob("*")] == ["new", "a.yaml"]
