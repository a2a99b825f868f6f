"""Recognising a source, writing a table and training on it, through the command line."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from magtkd.cli import app, run_app
from magtkd.config import Config
from magtkd.data import read_path
from magtkd.data.formats.conversion import Options
from magtkd.data.formats.convert import FORMATS, convert, find_format
from magtkd.errors import DataError
from magtkd.pipeline import run_chain
from magtkd.store import Store

Capture = pytest.CaptureFixture[str]
MakeConfig = Callable[..., Config]
MARKS = {
    "meld": "train_sent_emo.csv",
    "iemocap": "Session3/dialog/EmoEvaluation/x.txt",
    "media-csv": "IEMOCAP_train.csv",
    "emorynlp": "emorynlp_train_final.csv",
    "erc-json": "train_data.json",
    "dailydialog": "train/dialogues_train.txt",
    "compm": "MELD_train.txt",
    "features": "first_stage_train_features.pkl",
}


def _jsonl(folder: Path, table: pa.Table) -> Path:
    path = folder / "table.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    return path


def _tuple(folder: Path, table: pa.Table) -> Path:
    """The made-up corpus as SDT would write it, with dev in train."""
    labels = sorted(set(table["label"].to_pylist()))
    by_name: list[dict[str, list[Any]]] = [{} for _ in range(10)]
    keys: dict[str, list[str]] = {"train": [], "test": []}
    for row in table.to_pylist():
        key = row["dialogue_id"]
        features = [np.float32(row[f"{name}_features"]) for name in ("text", "audio", "video")]
        text, audio, video = features
        number = labels.index(row["label"])
        values = (key, row["speaker"], number, *[text] * 4, audio, video, row["text"])
        for field, value in zip(by_name, values, strict=True):
            field.setdefault(key, []).append(value)
        ids = keys["test" if row["split"] == "test" else "train"]
        if key not in ids:
            ids.append(key)
    path = folder / "features.pkl"
    path.write_bytes(pickle.dumps((*by_name, keys["train"], keys["test"])))
    return path


@pytest.mark.parametrize("write", [_jsonl, _tuple])
def test_what_was_converted_trains(
    tmp_path: Path,
    tiny_table: pa.Table,
    tiny_config: MakeConfig,
    capsys: Capture,
    write: Callable[[Path, pa.Table], Path],
) -> None:
    source, out = write(tmp_path, tiny_table), tmp_path / "out.parquet"
    command = ["data", "convert", str(source), "--out", str(out)]
    command += ["--labels", "joy,mad,sad"] if write is _tuple else []
    assert run_app(app, [*command, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["read"] == facts["written"] == tiny_table.num_rows
    assert run_app(app, ["data", "inspect", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["fingerprint"] == facts["fingerprint"]
    if write is _jsonl:
        assert facts["splits"].keys() == {"train", "dev", "test"}
    config = tiny_config({"data.synthetic": None, "data.path": str(out)})
    artifacts = run_chain(config, Store(tmp_path / "store"))
    assert "dev" in artifacts["fusion"].metrics


@pytest.mark.parametrize("name", MARKS)
def test_folders_are_recognised(tmp_path: Path, name: str) -> None:
    path = tmp_path / MARKS[name]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")
    assert find_format(tmp_path) == name


def test_two_formats_in_one_folder(tmp_path: Path) -> None:
    for name in ("meld", "emorynlp"):
        (tmp_path / MARKS[name]).write_text("Utterance\n")
    with pytest.raises(DataError, match=r"more than one format: meld \(train_sent.*; emorynlp \("):
        find_format(tmp_path)
    with pytest.raises(DataError, match=r"lacks emorynlp_dev_final\.csv"):
        convert(tmp_path, tmp_path / "x.parquet", format="emorynlp")


def test_no_format(tmp_path: Path) -> None:
    for number in range(10):
        (tmp_path / f"file{number}").write_text("")
    with pytest.raises(DataError) as caught:
        find_format(tmp_path)
    line = str(caught.value)
    assert f"{tmp_path}: no known format; found file0, file1" in line
    assert "file7 and 2 more; looked for meld: a folder with train_sent_emo.csv; iemocap:" in line
    assert all(form.looks_for in line for form in FORMATS.values())
    with pytest.raises(DataError, match="no known format; found a file file0; looked for"):
        find_format(tmp_path / "file0")
    with pytest.raises(DataError, match="nowhere: there is no such file or folder; give a release"):
        find_format(tmp_path / "nowhere")


def test_a_format_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("")
    message = "not iemocap: that is a folder with Session1/dialog/EmoEvaluation; found a.csv"
    with pytest.raises(DataError, match=message):
        convert(tmp_path, tmp_path / "x.parquet", format="iemocap")
    with pytest.raises(DataError, match="--format mosei: choose one of meld, iemocap, media-csv"):
        convert(tmp_path, tmp_path / "x.parquet", format="mosei")


def test_the_summary(tmp_path: Path, put_clip: Callable[[Path], None], capsys: Capture) -> None:
    header = "Utterance,Speaker,Emotion,Dialogue_ID,Utterance_ID,StartTime,EndTime"
    for split in ("train", "dev", "test"):
        rows = [f'No,Ross,joy,3,{n},"0:00:01,500","0:00:02,000"' for n in range(2)]
        (tmp_path / f"{split}_sent_emo.csv").write_text("\n".join([header, *rows]))
    for folder in ("train_splits", "dev_splits_complete", "output_repeated_splits_test"):
        put_clip(tmp_path / folder / "dia3_utt0.mp4")
    put_clip(tmp_path / "train_splits/dia3_utt1.mp4")
    out = tmp_path / "meld.parquet"
    command = ["data", "convert", str(tmp_path), "--out", str(out)]
    assert run_app(app, command) == 2
    error = capsys.readouterr().err
    assert "2 of 6 utterances lack a file: dev dia3_utt1, test dia3_utt1" in error
    assert error.count("\n") == 1
    assert not out.exists()
    command += ["--on-missing", "drop"]
    assert run_app(app, command) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "read as meld 6 dropped: without a clip 2 written to" in shown
    assert "clips without a file (2): dev dia3_utt1, test dia3_utt1" in shown
    assert run_app(app, [*command, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["format"], facts["read"], facts["written"]) == ("meld", 6, 4)
    assert facts["dropped"] == {"without a clip": 2}
    assert facts["listed"] == {"clips without a file": ["dev dia3_utt1", "test dia3_utt1"]}
    assert facts["splits"]["train"]["utterances"] == 2
    assert read_path(out).table["video_path"][0].as_py() == "train_splits/dia3_utt0.mp4"


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--on-missing", "ignore", "--on-missing ignore: choose error, drop, keep"),
        ("--classes", "5", "--classes 5: choose 6 or 4"),
    ],
)
def test_wrong_options(
    tmp_path: Path, capsys: Capture, option: str, value: str, message: str
) -> None:
    command = ["data", "convert", str(tmp_path), "--out", str(tmp_path / "x"), option, value]
    assert run_app(app, command) == 2
    assert capsys.readouterr().err == f"magtkd: {message}\n"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("meld", ["--text", "mean"], "read as meld: --text mean has no meaning here; leave it out"),
        ("meld", ["--labels", "emorynlp"], "--labels emorynlp has no meaning"),
        ("meld", ["--classes", "4"], "--classes 4 has no meaning"),
        ("meld", ["--no-distilled"], "--no-distilled has no meaning"),
        ("iemocap", ["--text", "mean"], "read as iemocap: --text mean has no meaning"),
        ("media-csv", ["--labels", "meld"], "read as media-csv: --labels meld has no meaning"),
        ("emorynlp", ["--classes", "4"], "read as emorynlp: --classes 4 has no meaning"),
        ("table", ["--on-missing", "drop"], "read as table: --on-missing drop has no meaning"),
    ],
)
def test_options_that_a_format_does_not_use(
    tmp_path: Path, capsys: Capture, name: str, options: list[str], message: str
) -> None:
    path = tmp_path / MARKS.get(name, "mine.csv")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")
    source, out = str(path if name == "table" else tmp_path), str(tmp_path / "x.parquet")
    assert run_app(app, ["data", "convert", source, "--out", out, *options]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", MARKS)
def test_a_release_one_level_up_or_down(tmp_path: Path, name: str) -> None:
    release = tmp_path / "x/release"
    path = release / MARKS[name]
    path.parent.mkdir(parents=True)
    path.write_text("")
    (release / "clips").mkdir()
    for source in (release.parent, release / "clips"):
        message = rf" \(did you mean {release}\?\); looked for"
        with pytest.raises(DataError, match=message):
            find_format(source)
        with pytest.raises(DataError, match=rf"not {name}: .* \(did you mean {release}\?\)$"):
            convert(source, tmp_path / "x.parquet", format=name)


def test_a_release_above_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "Session1/dialog/EmoEvaluation").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=f"Session1: no .*did you mean {tmp_path}[?]"):
        find_format("Session1")
    monkeypatch.chdir(tmp_path / "Session1")
    with pytest.raises(DataError, match=f"did you mean {tmp_path}[?]"):
        find_format(".")


def test_four_classes_of_other_labels(tmp_path: Path, tiny_table: pa.Table) -> None:
    source = _tuple(tmp_path, tiny_table)
    message = "--classes 4 is for IEMOCAP's labels, and joy is there; leave it out"
    with pytest.raises(DataError, match=message):
        convert(source, tmp_path / "x.parquet", Options(labels="joy,mad,sad", classes=4))


def test_the_output(tmp_path: Path, tiny_table: pa.Table) -> None:
    source = _jsonl(tmp_path, tiny_table)
    with pytest.raises(DataError, match=r"table\.jsonl: is the source itself; write to another"):
        convert(source, source)
    out = tmp_path / "out.parquet"
    out.write_text("what was there before")
    (tmp_path / "bad.jsonl").write_text("{}\n")
    with pytest.raises(DataError, match=r"out\.parquet: is there already and is not a Parquet"):
        convert(tmp_path / "bad.jsonl", out)
    assert out.read_text() == "what was there before"
    out.write_bytes(b"PAR1 before")
    with pytest.raises(DataError, match="lacks the column split"):
        convert(tmp_path / "bad.jsonl", out)
    assert out.read_bytes() == b"PAR1 before"
    convert(source, out)
    assert read_path(out).table.num_rows == tiny_table.num_rows
    with pytest.raises(DataError, match=r"no/out\.parquet: cannot be written: the folder .*/no d"):
        convert(source, tmp_path / "no/out.parquet")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "bad.jsonl",
        "out.parquet",
        "table.jsonl",
    ]
