"""What is not read is in no key and changes no bit; what is read is in the key."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from magtkd.config import Config, FusionConfig, get_value, load_config, names_of, with_values
from magtkd.data import read_corpus
from magtkd.errors import ConfigError, DataError
from magtkd.models import MODELS
from magtkd.pipeline import (
    Plan,
    Source,
    make_plan,
    run_chain,
    source_of,
    unread_lines,
    unread_names,
    unread_settings,
)
from magtkd.store import Artifact, Store
from tests.reads import is_read

MakeConfig = Callable[..., Config]
ALL = Source("f1e2d3", ("text", "audio", "video"), {"audio": "a0", "video": "b1"})
SOURCES = (
    ALL,
    Source("f1e2d3", ("text", "audio", "video"), has_dev=True),
    Source("c4", ("audio", "video"), has_dev=True),
    Source("d5", ("text", "audio")),
    Source("e6", ("video",)),
    Source("f7", (), {"audio": "a0"}),
)
# No part of any key by nature, or with more than one way to write one value; see test_pipeline.py.
APART = {"name", "data.path", "data.media", "fusion.recipe", "fusion.initial", "fusion.changes"}
APART |= {"fusion.modalities", "video_media.num_frames", "video_media.image_size"}
NAMES = [
    name
    for name in names_of()
    if name not in APART and not name.startswith(("resources.", "data.synthetic."))
]
CANDIDATES: tuple[Any, ...] = (
    *(None, True, False, 0, 0.25, 1, 2, 3, 16, 24, 32, 96, 400, 0.0625, "features", "tiny"),
    *("balanced", "loss", "accuracy", "linear", "published", "constant", "bfloat16", "prompt"),
    *("magt", "sdt", "concat", "name", "an/encoder", "silence", "black", "never", "mean", "head"),
    *("identity", "none", "adam", "table", "stages"),
)
# Frames that the sections name: an encoder that is absent has none to report.
BASE = with_values(Config(), {"video_media": {"num_frames": 4, "image_size": 8}})
# What decides what is read.
SWITCHES: dict[str, tuple[Any, ...]] = {
    "fusion.model": tuple(MODELS),
    "fusion.inputs": ("stages", "stages", "table"),
    "fusion.modalities": (None, "text", "audio", "text+audio", "audio+video"),
    "fusion.anchor": (True, False),
    "fusion.audio_weight": (0.0, 0.5),
    "fusion.video_weight": (0.0, 0.5),
    "fusion.feature_weight": (0.0, 0.5),
    "fusion.inter_weight": (0.0, 0.5),
    "fusion.intra_weight": (0.0, 0.5),
    "fusion.distill_weight": (0.0, 0.5),
    "fusion.schedule": ("constant", "linear", "published"),
    "fusion.changes": (
        {},
        {1: {"temperature": 5.0}},
        {3: {"distill_weight": 0.25, "audio_weight": 0.25}},
        {4: {"inter_weight": 0.75, "dropout": 0.25}},
    ),
    "teacher.encoder": ("features", "tiny"),
    "audio.encoder": ("features", "an/encoder"),
    "audio.distill": (None, {}, {"logit_weight": 0}, {"inter_weight": 0, "intra_weight": 0}),
    "video.distill": (None, {}, {"feature_weight": 0}),
    "video.schedule": ("constant", "linear"),
}
switches = st.fixed_dictionaries({}, optional={k: st.sampled_from(v) for k, v in SWITCHES.items()})


def changed(config: Config, values: dict[str, Any]) -> Config | None:
    """The configuration with other values; None where they are not legal."""
    try:
        return with_values(config, values)
    except ConfigError:
        return None


def planned(config: Config, source: Source) -> Plan | None:
    """The plan; None where the table lacks what the configuration wants."""
    try:
        return make_plan(config, source)
    except DataError:
        return None


def seeds_of(config: Config) -> list[int]:
    return [config.seed_of(stage) for stage in type(config.seeds).model_fields]


# --- keys -------------------------------------------------------------------------------------


@given(switches, st.sampled_from(SOURCES), st.sampled_from(NAMES), st.permutations(CANDIDATES))
@settings(max_examples=600)
def test_a_value_is_in_the_keys_exactly_where_it_is_read(
    values: dict[str, Any], source: Source, name: str, candidates: list[Any]
) -> None:
    config = changed(BASE, values)
    assume(config is not None)
    plan = planned(config, source)
    assume(plan is not None)
    assert config is not None
    for candidate in candidates:
        other = changed(config, {name: candidate})
        if other is None or get_value(other, name) == get_value(config, name):
            continue
        # A seed of a stage's own that is the configuration's is no other one.
        if name.startswith("seeds") and seeds_of(other) == seeds_of(config):
            continue
        if (after := planned(other, source)) is not None:
            assert (after != plan) == is_read(config, name, source), (name, candidate)
            break


@given(switches, st.sampled_from(SOURCES), st.sampled_from(NAMES))
def test_what_no_table_reads_is_not_read_of_any(
    values: dict[str, Any], source: Source, name: str
) -> None:
    config = changed(BASE, values)
    assume(config is not None and planned(config, source) is not None)
    assert config is not None
    assert is_read(config, name) or not is_read(config, name, source)


def test_examples_of_what_is_not_read() -> None:
    """Each of these was once in a key, and trained a stage twice."""
    unread = {
        "fusion.depth": {"fusion.model": "concat"},
        "fusion.num_heads": {"fusion.model": "concat"},
        "fusion.audio_weight": {"fusion.model": "sdt"},
        "fusion.distill_weight": {"fusion.model": "magt"},
        "fusion.feature_temperature": {"fusion.feature_weight": 0},
        "fusion.temperature": {"fusion.inter_weight": 0, "fusion.intra_weight": 0},
        "fusion.detach_anchor": {"fusion.modalities": "text"},
        "fusion.video_weight": {"fusion.modalities": "text+audio"},
        "fusion.warmup": {"fusion.schedule": "published"},
        "fusion.dropout": {"fusion.changes": {1: {"dropout": 0.25}}},
        "teacher.context": {"teacher.encoder": "features"},
        "teacher.template": {"teacher.encoder": "features"},
        "teacher.epochs": {"fusion.inputs": "table"},
        "audio.pooling": {"audio.encoder": "features"},
        "audio.distill.temperature": {"audio.distill.logit_weight": 0},
        "audio.distill.feature_temperature": {"audio.distill.feature_weight": 0},
        "audio.hidden_dim": {"fusion.modalities": "text+video"},
        "audio_media.max_samples": {"audio.encoder": "features"},
    }
    for name, values in unread.items():
        assert not is_read(with_values(Config(), values), name, ALL), name
    assert not is_read(Config(), "data.dev_fraction", SOURCES[1])
    assert not is_read(Config(), "audio.distill.temperature", SOURCES[2])


def test_changes_count_by_what_they_change() -> None:
    def key(changes: dict[int, dict[str, Any]], **values: Any) -> str:
        named = {f"fusion.{name}": value for name, value in values.items()}
        config = with_values(Config(), named | {"fusion.epochs": 9, "fusion.changes": changes})
        return make_plan(config, ALL).keys["fusion"]

    assert key({2: {"fused_weight": 3.0}}) == key({})
    assert key({2: {"dropout": 0.5}}) == key({}, dropout=0.5)
    assert key({10: {"dropout": 0.25}}) == key({})
    assert key({1: {"dropout": 0.25}}) == key({}, dropout=0.25)
    assert key({9: {"dropout": 0.25}}) != key({})
    # Read from the fifth epoch on, and so read.
    later = {5: {"feature_weight": 0.5}}
    assert key(later, feature_temperature=2.0) != key(later)
    assert key({}, feature_temperature=2.0) == key({})


# --- bits -------------------------------------------------------------------------------------

VARIANTS: dict[str, dict[str, Any]] = {
    "magt": {},
    "magt, no feature loss": {"fusion.feature_weight": 0.0},
    "magt, no logit loss": {"fusion.inter_weight": 0.0, "fusion.intra_weight": 0.0},
    "magt, nothing taught": {"fusion.audio_weight": 0.0, "fusion.video_weight": 0.0},
    "magt, heads alone": {
        "fusion.inter_weight": 0.0,
        "fusion.intra_weight": 0.0,
        "fusion.feature_weight": 0.0,
    },
    "magt, no anchor": {"fusion.anchor": False, "fusion.audio_weight": 0.0},
    "magt, one modality": {"fusion.modalities": "audio"},
    "magt, one modality, no anchor": {"fusion.modalities": "text", "fusion.anchor": False},
    "magt, two modalities": {"fusion.modalities": "text+video", "fusion.gate": "none"},
    "sdt": {"fusion.model": "sdt"},
    "sdt, one modality": {"fusion.model": "sdt", "fusion.modalities": "video"},
    "sdt, no distillation": {"fusion.model": "sdt", "fusion.distill_weight": 0.0},
    "concat": {"fusion.model": "concat"},
    "concat, one modality": {"fusion.model": "concat", "fusion.modalities": "text"},
    "table": {"fusion.inputs": "table"},
    "changes": {"fusion.changes": {1: {"learning_rate": 0.02}, 3: {"inter_weight": 0.5}}},
    "schedules": {f"{stage}.schedule": "published" for stage in ("teacher", "audio", "fusion")},
    "no distillation": {"audio.distill": None, "video.distill": None},
    "no logit loss": {"audio.distill.logit_weight": 0, "video.distill.inter_weight": 0},
    "no logits to compare": {"audio.distill.inter_weight": 0, "audio.distill.intra_weight": 0},
    "no feature loss": {"audio.distill.feature_weight": 0},
    "tiny teacher": {"teacher.encoder": "tiny", "teacher.max_length": 48, "teacher.epochs": 1},
}


def with_all_unread_changed(config: Config, source: Source) -> tuple[Config, set[str]]:
    """The configuration with another value wherever none is read, and the names of these."""
    names = {name for name in NAMES if not is_read(config, name, source)}
    for name in sorted(names):
        for candidate in (*CANDIDATES, 6, 0.75, 5.0):
            if name == "fusion.model" or candidate in ("tiny", "an/encoder"):
                continue
            other = changed(config, {name: candidate})
            if other is None or get_value(other, name) == get_value(config, name):
                continue
            try:
                if make_plan(other, source) == make_plan(config, source):
                    config = other
                    break
            except DataError:
                continue
    return config, names


def bits(artifacts: dict[str, Artifact]) -> dict[str, Any]:
    return {
        stage: (artifact.weights, artifact.table, artifact.metrics.get("reports"))
        for stage, artifact in artifacts.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("without", [(), ("text_features",)], ids=["all", "no text"])
@pytest.mark.filterwarnings("ignore:.*distill is ignored")
def test_what_is_not_read_changes_no_bit(
    tmp_path: Path,
    tiny_config: MakeConfig,
    tiny_parquet: Callable[..., Path],
    variant: str,
    without: tuple[str, ...],
) -> None:
    values = {"data": {"path": str(tiny_parquet(*without))}, "fusion.feature_weight": 0.5}
    config = tiny_config(values | VARIANTS[variant])
    source = source_of(read_corpus(config.data))
    if planned(config, source) is None:
        pytest.skip("the table lacks a modality that is fused")
    other, names = with_all_unread_changed(config, source)
    moved = {name for name in names if get_value(other, name) != get_value(config, name)}
    # What only one value is legal for: a prompt, LoRA and so on where there is no transformer.
    assert len(moved) >= len(names) / 2 > 0
    one = run_chain(config, Store(tmp_path / "one"), warn=lambda _: None)
    two = run_chain(other, Store(tmp_path / "two"), warn=lambda _: None)
    assert bits(one) == bits(two)


@pytest.mark.slow
def test_what_clips_do_not_read_changes_no_bit(tmp_path: Path, clip_config: MakeConfig) -> None:
    pytest.importorskip("av")
    config = clip_config({"video.train": "head", "audio.distill.feature_weight": 0})
    other, names = with_all_unread_changed(config, source_of(read_corpus(config.data)))
    assert {"data.dev_fraction", "audio.distill.feature_temperature"} <= names
    one = run_chain(config, Store(tmp_path / "one"), warn=lambda _: None)
    two = run_chain(other, Store(tmp_path / "two"), warn=lambda _: None)
    assert bits(one) == bits(two)


# --- warnings ---------------------------------------------------------------------------------


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_settings_that_have_no_effect(tmp_path: Path) -> None:
    write(tmp_path / "base.yaml", "fusion: {model: concat, depth: 2, gate: none}")
    file = write(tmp_path / "a.yaml", "extends: base.yaml\naudio: {pooling: mean}")
    config = load_config(file, ["fusion.num_heads=4", "video.distill.logit_weight=0"])
    config = with_values(config, {"video.distill.temperature": 3.0})
    found = unread_settings(config, ALL)
    assert list(found) == [
        "audio.pooling",
        "video.distill.temperature",
        "fusion.gate",
        "fusion.depth",
        "fusion.num_heads",
    ]
    assert unread_lines(found) == (
        "audio.pooling has no effect: encoder is features; read by transformers encoders",
        "video.distill.temperature has no effect: logit_weight is 0",
        "fusion.gate, fusion.depth, fusion.num_heads have no effect: model is concat; read by "
        "magt, sdt",
    )


def test_a_stage_that_is_not_there_has_no_settings() -> None:
    config = with_values(Config(), {"audio.epochs": 3, "fusion.modalities": "text+video"})
    assert unread_settings(config) == {
        "audio.epochs": "there is no stage audio: the chain is data, teacher, video, fusion"
    }
    assert unread_settings(with_values(Config(), {"audio.epochs": 3})) == {}
    one = Source("a", ("text",))
    assert list(unread_settings(with_values(Config(), {"audio.epochs": 3}), one)) == [
        "audio.epochs"
    ]


@pytest.mark.parametrize("values", [{}, {"fusion.depth": 1, "fusion.model": "concat"}])
def test_defaults_are_no_warnings(values: dict[str, Any], tmp_path: Path) -> None:
    from magtkd.config import dump_yaml

    config = with_values(Config(), values)
    assert unread_settings(config, ALL) == {}
    assert unread_settings(load_config(write(tmp_path / "a.yaml", dump_yaml(config)))) == {}


def test_without_distillation_a_teacher_is_in_no_key() -> None:
    """The table has no text features, so that the encoder decides whether a teacher exists."""
    source = Source("f1e2d3", ("audio",))
    alone = {"audio.distill": None, "fusion.modalities": "audio"}
    plans = [
        make_plan(with_values(Config(), {**alone, "teacher.encoder": encoder}), source).keys
        for encoder in ("features", "tiny")
    ]
    assert plans[0] == plans[1]


def test_what_a_recipe_sets_is_no_warning() -> None:
    recipe = Config.model_validate({"fusion": {"recipe": "published_iemocap"}})
    config = with_values(recipe, {"fusion.modalities": "text+audio", "seed": 3})
    assert config.fusion.video_weight == 0.8
    assert not is_read(config, "fusion.video_weight")
    assert unread_settings(config) == {}
    by_hand = with_values(config, {"fusion.video_weight": 0.7})
    assert list(unread_settings(by_hand)) == ["fusion.video_weight"]


def test_sections_and_unknown_names() -> None:
    config = with_values(Config(), {"audio.distill": None})
    assert is_read(config, "audio.distill.temperature")  # a value there makes the section
    assert not is_read(config, "audio.distill.temperature", Source("a", ("audio",)))
    assert "audio.distill" in unread_names(config, Source("a", ("audio",)))
    assert is_read(config, "fusion")
    assert not is_read(config, "audio_media")


def test_the_chain_says_what_has_no_effect(tmp_path: Path, tiny_config: MakeConfig) -> None:
    warned: list[str] = []
    config = tiny_config({"fusion.model": "concat", "fusion.depth": 2})
    run_chain(config, Store(tmp_path), warn=warned.append)
    assert warned == [
        "fusion.depth, fusion.num_heads have no effect: model is concat; read by magt, sdt"
    ]


# --- documentation ----------------------------------------------------------------------------


def test_the_documented_table_is_what_the_models_declare() -> None:
    text = (Path(__file__).parents[2] / "docs/fusion.md").read_text(encoding="utf-8")
    table = text.partition("| `fusion.model` |")[2].partition("\n\n")[0]
    rows = [line.split("|")[1:-1] for line in table.splitlines()[2:]]
    documented = {row[0].strip(" `"): re.findall(r"`(\w+)`", row[2]) for row in rows}
    assert documented == {name: list(model.reads) for name, model in MODELS.items()}


def test_the_schema_names_the_readers() -> None:
    schema = Config.model_json_schema()["$defs"]
    fusion = schema["FusionConfig"]["properties"]
    for name, field in fusion.items():
        readers = [model for model in MODELS if name in MODELS[model].reads]
        is_listed = f"Read by: {', '.join(readers)}." in field["description"]
        assert is_listed == bool(readers), name
    assert fusion["warmup"]["description"].endswith("Read by: linear.")
    assert fusion["model"]["enum"] == list(MODELS)
    context = schema["TeacherConfig"]["properties"]["context"]["description"]
    assert context.endswith("Read by: transformers encoders.")


@pytest.mark.parametrize("model", MODELS.values(), ids=list(MODELS))
def test_what_a_model_declares_exists(model: Any) -> None:
    assert set(model.reads) <= set(FusionConfig.model_fields)
