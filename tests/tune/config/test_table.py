"""The specification of a table: what it takes, and one line for what it does not."""

import pytest
import yaml

from magtkd.config import Config, with_values
from magtkd.errors import ConfigError
from tune.config import BASELINES, TableSpec, baseline_values, load_table

TREE = {
    "name": "paper",
    "seeds": 3,
    "reference": "MAGT",
    "data": {"MOSI": "mosi.parquet"},
    "rows": [
        {"name": "MAGT", "config": "mosi.yaml"},
        {"name": "text", "baseline": "text"},
        {"name": "other", "published": {"accuracy": 80.3}, "source": "a paper"},
    ],
}


@pytest.fixture
def load(tmp_path):
    def run(tree, *overrides):
        path = tmp_path / "table.yaml"
        path.write_text(yaml.safe_dump(TREE | tree, sort_keys=False))
        return load_table(path, overrides)

    return run


def test_a_number_of_seeds_leaves_out_that_of_sweeps(load):
    assert load({}).seeds == (1, 2, 3)
    assert load({"seeds": [7, 3]}).seeds == (7, 3)
    assert load({}, "seeds=4").seeds == (1, 2, 3, 4)


def test_paths_are_relative_to_who_gives_them(load, tmp_path, monkeypatch):
    spec = load({})
    assert spec.data == {"MOSI": {"path": str(tmp_path / "mosi.parquet")}}
    assert spec.row("MAGT").config == str(tmp_path / "mosi.yaml")
    monkeypatch.chdir("/")
    assert load({}, "data.MOSI=a.parquet").data["MOSI"]["path"] == "/a.parquet"


def test_published_figures_are_of_the_only_data_set_or_of_each(load):
    row = load({}).row("other")
    assert row.figures("MOSI", is_only=True) == {"accuracy": 80.3}
    two = {"name": "other", "published": {"B": {"accuracy": 70}}, "source": "a paper"}
    spec = load({"data": {"A": "a", "B": "b"}, "rows": [*TREE["rows"][:2], two]})
    assert spec.row("other").figures("A", is_only=False) == {}
    assert spec.row("other").figures("B", is_only=False) == {"accuracy": 70.0}


def rows(*changed):
    return {"rows": [TREE["rows"][0], *changed]}


@pytest.mark.parametrize(
    ("tree", "match"),
    [
        ({"seeds": 1}, r"seeds: 1: a mean and its deviation take 2 or more; give 2 to 100$"),
        ({"seeds": [3]}, r"seeds: a list of 1: a mean and its deviation take 2 or more"),
        ({"seeds": [3, 3]}, r"seeds: 3 is duplicated; keep one"),
        ({"reference": "MAG"}, r"reference: there is no row 'MAG'; did you mean 'MAGT'\?"),
        ({"reference": "other"}, r"reference: row 'other' has published figures, and no"),
        ({"data": {}}, r"data: there is none; write \{MOSI: mosi.parquet\}"),
        ({"metrics": ["loss"]}, r"metrics: 'loss': no such metric; known are accuracy, "),
        ({"rows": []}, r"rows: there is none"),
        (rows(TREE["rows"][0]), r"rows: 'MAGT' is duplicated"),
        (rows({"name": "a"}), r"row 'a' says not what it is; give one of sweep, config"),
        (rows({"name": "a", "sweep": "s", "config": "c"}), r"row 'a' has sweep and config; give"),
        (rows({"name": "a", "baseline": "txt"}), r"no such baseline 'txt'; did you mean 'text'\?"),
        (rows({"name": "a", "baseline": "text", "of": "b"}), r"row 'a': of: there is no row 'b'"),
        (rows({"name": "a", "baseline": "text", "of": "a"}), r"row 'a': is a baseline of itself"),
        (rows({"name": "a", "published": {"accuracy": 1}}), r"row 'a': there is no source of"),
        (rows({"name": "a", "published": {"acc": 1}, "source": "b"}), r"no such metric 'acc'"),
        (rows({"name": "a", "config": {"MELD": "c"}}), r"row 'a': there is no data set 'MELD'"),
        ({"colour": 1}, r"colour: unknown key; known are name, seeds"),
    ],
)
def test_what_is_wrong_is_one_line(load, tree, match):
    with pytest.raises(ConfigError, match=match) as caught:
        load(tree)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("model", ["magt", "sdt"])
@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_is_a_configuration(name, model):
    config = Config.model_validate({"fusion": {"model": model}})
    if (name, model) == ("no_anchor", "sdt"):
        return  # which has none
    values = baseline_values(name, model)
    assert values
    with_values(config, values)


def test_a_concatenation_has_no_heads_to_distil():
    with pytest.raises(ValueError, match="concat has no distillation between heads; leave"):
        baseline_values("no_head_distillation", "concat")


def test_a_specification_survives_its_own_schema():
    assert TableSpec.model_validate(TREE | {"seeds": [1, 2]}).model_json_schema()["properties"]
