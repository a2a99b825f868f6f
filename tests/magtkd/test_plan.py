from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from magtkd.config import Config, with_values
from magtkd.errors import ConfigError, DataError
from magtkd.pipeline import Plan, Source, make_plan

MODALITIES = ("text", "audio", "video")
ALL = Source("f1e2d3", MODALITIES)
BASELINES: dict[str, dict[str, Any]] = {
    "magt": {},
    "sdt": {"fusion.model": "sdt"},
    "sdt, identity": {"fusion.model": "sdt", "fusion.gate": "identity"},
    "concat": {"fusion.model": "concat"},
    "without gates": {"fusion.gate": "none"},
    "without an anchor": {"fusion.anchor": False},
    "without distillation": {"audio.distill": None, "video.distill": None},
    "of the table": {"fusion.inputs": "table"},
    **{
        "+".join(names): {"fusion.modalities": "+".join(names)}
        for number in (1, 2)
        for names in itertools.combinations(MODALITIES, number)
    },
}


def plan(values: dict[str, Any] | None = None, source: Source = ALL) -> Plan:
    return make_plan(with_values(Config(), values or {}), source)


def test_every_baseline_has_a_key_of_its_own() -> None:
    keys = [plan(values).keys["fusion"] for values in BASELINES.values()]
    assert len(set(keys)) == len(BASELINES)
    assert keys == [plan(values).keys["fusion"] for values in BASELINES.values()]


@pytest.mark.parametrize(
    ("values", "stages", "read"),
    [
        ({"fusion.modalities": "text"}, ("data", "teacher"), ("data", "teacher")),
        ({"fusion.modalities": "audio"}, ("data", "teacher", "audio"), ("data", "audio")),
        (
            {"fusion.modalities": "audio", "audio.distill": None},
            ("data", "audio"),
            ("data", "audio"),
        ),
        (
            {"fusion.modalities": "text+video"},
            ("data", "teacher", "video"),
            ("data", "teacher", "video"),
        ),
        ({"fusion.inputs": "table"}, ("data",), ("data",)),
    ],
)
def test_stages_that_nobody_needs_are_left_out(
    values: dict[str, Any], stages: tuple[str, ...], read: tuple[str, ...]
) -> None:
    planned = plan(values)
    assert planned.upstream == stages
    assert planned.reads["fusion"] == read


def test_keys_of_the_stages_before_are_as_ever() -> None:
    whole = plan().keys
    for values in BASELINES.values():
        if "audio.distill" not in values:
            upstream = {stage: key for stage, key in plan(values).keys.items() if stage != "fusion"}
            assert upstream.items() <= whole.items()


def test_what_is_left_out_changes_no_key() -> None:
    values = {"fusion.modalities": "text+audio"}
    assert plan(values) == plan(values | {"video.hidden_dim": 32})
    table = {"fusion.inputs": "table"}
    assert plan(table) == plan(table | {"teacher.hidden_dim": 32, "audio.epochs": 3})


@pytest.mark.parametrize("inputs", ["stages", "table"])
def test_all_modalities_by_name_are_all_there_are(inputs: str) -> None:
    values = {"fusion.inputs": inputs}
    named = {"fusion.modalities": "text+audio+video"}
    assert plan(values | named) == plan(values)
    pair = {"fusion.modalities": "text+video"}
    assert plan(values | pair) != plan(values)
    assert plan(values | pair, Source("a", ("text", "video"))) == plan(
        values, Source("a", ("text", "video"))
    )


@pytest.mark.parametrize(
    ("values", "features", "message"),
    [
        (
            {"fusion.modalities": "text+video"},
            ("text", "audio"),
            r"fusion\.modalities is text\+video, but the stages make text, audio; leave out video",
        ),
        (
            {"fusion.inputs": "table", "fusion.modalities": "text+audio"},
            ("audio",),
            r"text\+audio, but the table has features of audio; leave out text",
        ),
        (
            {"fusion.inputs": "table", "teacher.encoder": "tiny"},
            (),
            r"the table has features of nothing; leave out fusion\.inputs",
        ),
    ],
)
def test_modalities_that_are_not_there(
    values: dict[str, Any], features: tuple[str, ...], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        plan(values, Source("a", features))


def test_a_recipe_and_its_values_have_one_key() -> None:
    recipe = with_values(Config(), {"fusion.recipe": None})
    short = Config.model_validate({"fusion": {"recipe": "published_iemocap"}})
    spelled = {name: getattr(short.fusion, name) for name in type(short.fusion).model_fields}
    assert make_plan(short, ALL) == plan({f"fusion.{name}": v for name, v in spelled.items()})
    assert make_plan(short, ALL) != make_plan(recipe, ALL)


def test_weights_to_start_from_count_by_their_content(tmp_path: Path) -> None:
    one, two, other = (tmp_path / name for name in ("one", "two", "other"))
    one.write_bytes(b"same")
    two.write_bytes(b"same")
    other.write_bytes(b"other")
    keys = [plan({"fusion.initial": str(path)}).keys["fusion"] for path in (one, two, other)]
    assert keys[0] == keys[1]
    assert len({*keys, plan().keys["fusion"]}) == 3
    with pytest.raises(ConfigError, match=r"fusion\.initial: .*gone: cannot be read: No such file"):
        plan({"fusion.initial": str(tmp_path / "gone")})


def test_features_as_they_are_make_another_table() -> None:
    assert plan({"data.standardise": False}).keys["data"] != plan().keys["data"]
