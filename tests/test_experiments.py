"""The files in experiments/: each is accepted, and names a schema that is up to date."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from magtkd.cli import run_app
from magtkd.config import Config, load_config
from tune.cli import app
from tune.config import SweepConfig, load_sweep, load_table
from tune.driver.table import Rows

ROOT = Path(__file__).parents[1]
SCHEMAS = ROOT / "docs" / "schemas"
EXPERIMENTS = sorted((ROOT / "experiments").glob("*.yaml"))
OPTIONS = {"config": (), "sweep": ("--sweep",), "table": ("--table",)}
MODELINE = re.compile(r"# yaml-language-server: \$schema=(\S+)\n")

every_experiment = pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)


def kind_of(path: Path) -> str:
    if path.stem.startswith("paper_"):
        return "table"
    return "sweep" if path.stem.endswith("_sweep") else "config"


@every_experiment
def test_an_experiment_is_accepted(path: Path) -> None:
    if kind_of(path) == "sweep":
        assert load_sweep(path).search_space
    elif kind_of(path) == "table":
        check_rows(path)
    else:
        assert isinstance(load_config(path), Config)


def check_rows(path: Path) -> None:
    """Each row that is trained is a configuration."""
    spec = load_table(path)
    rows = Rows(spec, "nowhere")
    for row in spec.rows:
        found = [rows.config(row, data) for data in spec.data]
        assert row.published or any(isinstance(one, Config) for one in found)


@every_experiment
def test_an_experiment_names_its_schema(path: Path) -> None:
    match = MODELINE.match(path.read_text(encoding="utf-8"))
    assert match is not None, f"{path.name}: no yaml-language-server line"
    assert (path.parent / match[1]).resolve() == SCHEMAS / f"{kind_of(path)}.schema.json"


@pytest.mark.parametrize("kind", OPTIONS)
def test_a_schema_is_up_to_date(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = SCHEMAS / f"{kind}.schema.json"
    assert run_app(app, ["config", "schema", *OPTIONS[kind]]) == 0
    command = " ".join(["magtkd config schema", *OPTIONS[kind], ">", f"docs/schemas/{path.name}"])
    assert capsys.readouterr().out == path.read_text(encoding="utf-8"), f"run: {command}"


def complaints(tree: Any, kind: str) -> list[str]:
    """What an editor underlines."""
    schema = json.loads((SCHEMAS / f"{kind}.schema.json").read_text(encoding="utf-8"))
    return [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(tree)]


@every_experiment
def test_an_editor_underlines_nothing(path: Path) -> None:
    tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert complaints(tree, kind_of(path)) == []


def test_an_editor_underlines_a_typing_error() -> None:
    tree = SweepConfig().model_dump(mode="json") | {"serach": {}}
    assert len(complaints(tree, "sweep")) == 1
