from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from magtkd.config import (
    Config,
    DistillConfig,
    FusionConfig,
    dump_yaml,
    get_value,
    load_config,
    names_of,
    nearest,
    validate,
    with_values,
)
from magtkd.errors import ConfigError


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


# --- keys and ranges --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"depth": 2}, r"here: depth: unknown key; there is fusion\.depth$"),
        ({"teachr": {}}, r"here: teachr: unknown key; did you mean 'teacher'\?$"),
        ({"fusion": {"dept": 2}}, r"here: fusion\.dept: unknown key; did you mean 'depth'\?$"),
        (
            {"audio": {"distill": {"temprature": 2}}},
            r"here: audio\.distill\.temprature: unknown key; did you mean 'temperature'\?$",
        ),
        (
            {"data": {"synthetic": {"num_dialogs": 9}}},
            r"data\.synthetic\.num_dialogs: unknown key; did you mean 'num_dialogues'\?$",
        ),
        (
            {"resources": {"fusion": {"xyzzy": 1}}},
            r"resources\.fusion\.xyzzy: unknown key; known are cpu, gpu, memory, accelerator_type, "
            r"label_selector, custom$",
        ),
        ({"nope": 1, "zilch": 2}, r"nope: unknown key; .* \(and 1 more\)$"),
    ],
)
def test_unknown_key(tree: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(Config, tree, "here")


def test_unknown_key_in_a_list_names_that_sections_keys() -> None:
    from tune.config import SweepConfig

    tree = {"objective": [{"metric": "dev/loss"}, {"mod": "min"}]}
    message = r"objective\.1\.mod: unknown key; did you mean 'mode'\?"
    with pytest.raises(ConfigError, match=message):
        validate(SweepConfig, tree, "here")
    with pytest.raises(ConfigError, match=r"objective\.0\.zzz: .*; known are metric, mode$"):
        validate(SweepConfig, {"objective": {"zzz": 1}}, "here")


def test_sweep_file_given_to_train(tmp_path: Path) -> None:
    path = write(
        tmp_path / "sweep.yaml", "fusion: {depth: 1}\nspace: {fusion.depth: {int: [1, 3]}}"
    )
    with pytest.raises(ConfigError, match="this is a sweep file, for `magtkd sweep`"):
        load_config(path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("fusion.epochs", -3, r"fusion\.epochs: must be >= 1, got -3$"),
        ("teacher.learning_rate", 0, r"teacher\.learning_rate: must be > 0, got 0$"),
        ("audio.dropout", 1, r"audio\.dropout: must be < 1, got 1$"),
        ("video.weight_decay", float("inf"), r"video\.weight_decay: must be finite, got inf$"),
        ("audio.distill.temperature", 0, r"audio\.distill\.temperature: must be > 0, got 0$"),
        ("fusion.num_heads", 7, r"fusion: num_heads is 7, which does not divide .* 64; choose"),
        ("fusion.hidden_dim", 8.5, r"fusion\.hidden_dim: must be an integer, got 8\.5$"),
        ("teacher.prompt_length", 3, r"teacher: prompt_length is 3, but encoder 'features' has"),
        ("teacher.train", "prompt", r"teacher: train is 'prompt', but encoder 'features' has"),
        ("data.speakers", "face", r"data\.speakers: must be one of 'conversation', .*, got 'face'"),
        ("seed", -1, r"seed: must be >= 0, got -1$"),
        ("name", "../up", r"name: must be a string that matches \^.*\$, got '\.\./up'$"),
        (
            "resources.fusion.memory",
            "lots",
            r"memory: must be a size in bytes, or one such as 4GB, got 'lots'$",
        ),
        ("fusion.anchor", "maybe", r"fusion\.anchor: must be true or false, got 'maybe'$"),
        ("teacher.encoder", "", r"teacher\.encoder: must be a string of length >= 1, got ''$"),
        ("teacher.encoder", None, r"teacher\.encoder: must be a string, got null$"),
        ("teacher.encoder", ["x"] * 99, r"must be a string, got \[('x', ){15}'\.\.\.$"),
        ("fusion.learning_rate", "x", r"fusion\.learning_rate: must be a number, got 'x'$"),
        ("fusion.model", "mgat", r"must be one of 'magt', .*, got 'mgat'; did you mean 'magt'\?$"),
        ("fusion.changes", 3, r"fusion\.changes: must be a mapping, got 3$"),
        ("fusion.changes", {0: {"dropout": 0.1}}, r"changes at epoch 0; epochs count from 1"),
        ("fusion.changes", {2: {"depth": 3}}, r"'depth' cannot change in training; these can: "),
        (
            "fusion.changes",
            {2: {"dropout": 7}},
            r"changes at epoch 2: dropout: must be < 1, got 7$",
        ),
    ],
)
def test_illegal_value(name: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        with_values(Config(), {name: value})


def test_odd_width_and_divisors() -> None:
    with pytest.raises(ConfigError, match=r"hidden_dim is 9; .* needs an even one"):
        with_values(Config(), {"fusion.hidden_dim": 9, "fusion.num_heads": 3})
    config = with_values(Config(), {"fusion.hidden_dim": 9, "fusion.model": "concat"})
    assert config.fusion.hidden_dim == 9


def test_a_loss_without_a_weight_is_refused() -> None:
    weights = dict.fromkeys(("fused_weight", "modality_weight", "distill_weight"), 0)
    with pytest.raises(ConfigError, match=r"fusion: fused_weight, .* are all 0, which trains noth"):
        validate(Config, {"fusion": {"model": "sdt", **weights}}, "here")
    validate(Config, {"fusion": {"model": "sdt", **weights, "modality_weight": 0.1}}, "here")


def test_long_prompt() -> None:
    values = {"teacher.encoder": "tiny", "teacher.prompt_length": 129}
    with pytest.raises(ConfigError, match="prompt_length is 129; keep it at most half"):
        with_values(Config(), values)


def test_data_has_one_source() -> None:
    with pytest.raises(ConfigError, match="path and synthetic exclude each other; set one of"):
        with_values(Config(), {"data.path": "x", "data.synthetic": {}})
    with pytest.raises(ConfigError, match=r"data.synthetic: inertia \+ contagion is 1\.2; keep it"):
        with_values(Config(), {"data.synthetic": {"inertia": 1.0}})


def test_frozen() -> None:
    config = Config()
    with pytest.raises(ValidationError, match="frozen"):
        config.fusion.depth = 3  # type: ignore[misc]


# --- documentation ----------------------------------------------------------------------------


def test_every_field_is_documented() -> None:
    from tune.config import SweepConfig

    schema = SweepConfig.model_json_schema()
    sections = {"": schema} | schema["$defs"]
    missing = [
        f"{section}.{name}"
        for section, body in sections.items()
        for name, field in body["properties"].items()
        if not _described(field, schema["$defs"])
    ]
    assert not missing


def _described(field: dict[str, Any], definitions: dict[str, Any]) -> bool:
    if "description" in field:
        return True
    reference = field.get("$ref", "").rpartition("/")[2]
    return bool(definitions.get(reference, {}).get("description"))


# --- names and values -------------------------------------------------------------------------


def test_names() -> None:
    names = list(names_of())
    assert len(names) == len(set(names))
    assert {"seed", "audio.distill.temperature", "data.synthetic.num_dialogues"} <= set(names)
    assert not {"audio", "audio.distill", "fusion.CHANGEABLE"} & set(names)
    assert "fusion.depth" in set(names_of())
    assert "fusion" not in set(names_of())


@pytest.mark.parametrize("name", list(names_of()))
def test_every_name_can_be_got_and_set(name: str) -> None:
    lora = {f"{stage}.lora": {} for stage in ("teacher", "audio", "video")}
    encoders = {f"{stage}.encoder": "an/encoder" for stage in ("teacher", "audio", "video")}
    config = with_values(Config(), {"data.synthetic": {}} | encoders | lora)
    value = get_value(config, name)
    if name != "data.path":  # which excludes data.synthetic
        assert with_values(config, {name: value}) == config


def test_nearest() -> None:
    assert nearest("depht", ["depth", "width"]) == "; did you mean 'depth'?"
    assert nearest("depht", ["xyz"]) == ""


def test_values_through_a_null_section() -> None:
    config = with_values(Config(), {"audio.distill": None})
    assert get_value(config, "audio.distill.temperature") is None
    again = with_values(config, {"audio.distill.temperature": 5})
    assert again.audio.distill == DistillConfig(temperature=5)
    assert config.audio.distill is None


@pytest.mark.parametrize("name", ["fusion.depth.deeper", "seed.x.y"])
def test_value_below_a_value(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"here: {name}: no such name"):
        with_values(Config(), {name: 1}, source="here")


# --- changes in training ----------------------------------------------------------------------


def test_changes_add_up() -> None:
    changes = {4: {"dropout": 0.25}, 2: {"learning_rate": 0.5, "dropout": 0.75}}
    section = FusionConfig(changes=changes)
    assert list(section.changes) == [2, 4]
    rates = [(section.at_epoch(n).learning_rate, section.at_epoch(n).dropout) for n in range(1, 6)]
    assert rates == [(1e-4, 0.5), (0.5, 0.75), (0.5, 0.75), (0.5, 0.25), (0.5, 0.25)]
    assert section.at_epoch(3).changes == {}


def test_changes_are_stored_as_the_values_that_they_mean() -> None:
    whole = FusionConfig(changes={2: {"learning_rate": 1, "detach_anchor": "yes"}})
    assert whole.model_dump_json() == (
        FusionConfig(changes={2: {"learning_rate": 1.0, "detach_anchor": True}}).model_dump_json()
    )


# --- files ------------------------------------------------------------------------------------


def test_extends_is_relative_to_the_file_that_says_it(tmp_path: Path) -> None:
    write(tmp_path / "low/base.yaml", "data: {path: ../tables/t.parquet}\nfusion: {depth: 2}")
    write(tmp_path / "low/middle.yaml", "extends: base.yaml\nfusion: {num_heads: 4}\nseed: 1")
    top = write(tmp_path / "top.yaml", "extends: low/middle.yaml\nseed: 2\naudio: {distill: null}")
    config = load_config(top)
    assert (config.fusion.depth, config.fusion.num_heads, config.seed) == (2, 4, 2)
    assert config.data.path == str((tmp_path / "tables/t.parquet").resolve())
    assert config.audio.distill is None


def test_extends_brings_back_a_null_section(tmp_path: Path) -> None:
    write(tmp_path / "base.yaml", "audio: {distill: null}")
    top = write(tmp_path / "top.yaml", "extends: base.yaml\naudio: {distill: {temperature: 3}}")
    assert load_config(top).audio.distill == DistillConfig(temperature=3)


def test_extends_merges_changes(tmp_path: Path) -> None:
    write(tmp_path / "base.yaml", "fusion: {changes: {2: {dropout: 0.1}}}")
    top = write(tmp_path / "top.yaml", "extends: base.yaml\nfusion: {changes: {5: {dropout: 0.2}}}")
    assert load_config(top).fusion.changes == {2: {"dropout": 0.1}, 5: {"dropout": 0.2}}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a": "extends: a.yaml"}, r"a\.yaml: extends itself: .*a\.yaml -> .*a\.yaml$"),
        ({"a": "extends: b.yaml", "b": "extends: a.yaml"}, r"extends itself: .*b\.yaml -> .*a"),
        ({"a": "extends: nope.yaml"}, r"a\.yaml: extends: there is no file .*nope\.yaml$"),
        ({"a": "extends: [b.yaml]"}, r"extends: \['b\.yaml'\] is not the name of a file"),
        ({"a": "seed: 1\nseed: 2"}, r"a\.yaml, line 2: not valid YAML: found duplicate key seed"),
        ({"a": "fusion:\n\tdepth: 2"}, r"a\.yaml, line 2: not valid YAML"),
        ({"a": "[1, 2]"}, r"a\.yaml: the top level is not a mapping; write sections such as"),
        ({"a": "3"}, r"a\.yaml: the top level is not a mapping"),
        ({"a": "true"}, r"a\.yaml: the top level is not a mapping"),
        ({"a": "hello"}, r"a\.yaml: hello: unknown key"),
        ({"a": "name: ${nope}"}, r"a\.yaml: .*nope"),
        ({"a": "1: 2"}, r"a\.yaml: 1: must be a string, as every key, got 1$"),
        ({"a": "fusion:"}, r"a\.yaml: fusion: must be a section of keys and values, got null$"),
    ],
)
def test_wrong_file(tmp_path: Path, files: dict[str, str], message: str) -> None:
    for name, text in files.items():
        write(tmp_path / f"{name}.yaml", text)
    with pytest.raises(ConfigError, match=message):
        load_config(tmp_path / "a.yaml")


def test_unreadable_files(tmp_path: Path) -> None:
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(bytes(range(256)))
    with pytest.raises(ConfigError, match=r"binary\.yaml: cannot read .*: it is not UTF-8 text"):
        load_config(binary)
    with pytest.raises(ConfigError, match="Is a directory; give the path of a YAML file"):
        load_config(tmp_path)
    with pytest.raises(ConfigError, match="No such file or directory; give the path"):
        load_config(tmp_path / "nope.yaml")


def test_empty_file_is_the_defaults(tmp_path: Path) -> None:
    assert load_config(write(tmp_path / "empty.yaml", "")) == Config()
    assert load_config(write(tmp_path / "comment.yaml", "# nothing\n")) == Config()
    assert load_config(None) == Config()


# --- overrides --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "name", "value"),
    [
        ("fusion.learning_rate=1e-4", "fusion.learning_rate", 1e-4),
        ("fusion.learning_rate=2E3", "fusion.learning_rate", 2000.0),
        ("teacher.context=null", "teacher.context", None),
        ("teacher.patience=", "teacher.patience", None),
        ("audio.distill=null", "audio.distill", None),
        ("fusion.detach_anchor=true", "fusion.detach_anchor", True),
        (" name =x=y", None, None),
        ("resources.fusion.memory=4GB", "resources.fusion.memory", 4_000_000_000),
        ("audio.distill={temperature: 1e1}", "audio.distill.temperature", 10.0),
        ("fusion.changes={3: {dropout: 1e-1}}", "fusion.changes", {3: {"dropout": 0.1}}),
        ("data.synthetic.num_dialogues=7", "data.synthetic.num_dialogues", 7),
        ("name='007'", "name", "007"),
    ],
)
def test_override(override: str, name: str | None, value: Any) -> None:
    if name is None:
        with pytest.raises(
            ConfigError, match=r"name: must be a string that matches .*, got 'x=y'$"
        ):
            load_config(None, [override])
    else:
        assert get_value(load_config(None, [override]), name) == value


def test_numbers_in_lists_are_numbers() -> None:
    from tune.config import SweepConfig

    override = "space={fusion.learning_rate: {float: [1e-4, 1e-2], log: true}}"
    sweep = load_config(None, [override], SweepConfig)
    assert sweep.search_space.to_tree()["fusion.learning_rate"]["float"] == [1e-4, 1e-2]


def test_overrides_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "a/a.yaml", "data: {path: t.parquet}\nseed: 3")
    config = load_config(path, ["seed=4", "audio.distill=null", "audio.distill.temperature=7"])
    assert (config.seed, config.audio.distill) == (4, DistillConfig(temperature=7))
    assert config.data.path == str(tmp_path / "a/t.parquet")
    assert load_config(path, ["data.path=t.parquet"]).data.path == str(tmp_path / "t.parquet")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("fusion.depth", r"override 'fusion\.depth': write it as key=value"),
        ("=3", r"override '=3': write it as key=value"),
        ("fusion.depth=[1", r"override 'fusion\.depth=\[1': the value is not valid YAML; quote"),
        ("fusion.dept=1", r"fusion\.dept: unknown key; did you mean 'depth'\?"),
        ("fusion.depth.x.y=1", r"fusion\.depth: must be an integer, got \{'x': \{'y': 1\}\}$"),
        ("seed=1 seed.x=2", r"seed: must be an integer, got '1 seed\.x=2'$"),
        ("name=${oc.env:NOPE_NOPE}", r"the value is not valid YAML"),
    ],
)
def test_wrong_override(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(None, [override])


def test_override_below_a_value_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", "fusion: {depth: 2}")
    with pytest.raises(ConfigError, match=r"override .*: depth is a value, not a section"):
        load_config(path, ["fusion.depth.x=1"])


# --- round trip -------------------------------------------------------------------------------

positive = st.floats(1e-12, 1e12)
words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="$"), min_size=1)
distillations = st.none() | st.builds(
    DistillConfig, temperature=positive, logit_weight=st.floats(0, 1e300)
)


@st.composite
def configs(draw: st.DrawFn) -> Config:
    changed = st.fixed_dictionaries(
        {}, optional={"learning_rate": positive, "temperature": positive}
    )
    values = {
        "name": draw(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)),
        "seed": draw(st.integers(0, 2**31 - 1)),
        "data.path": draw(st.none() | st.text(string.printable.replace("$", "")).map(_absolute)),
        "teacher.encoder": draw(words),
        "teacher.context": draw(st.none() | st.integers(0, 9)),
        "teacher.learning_rate": draw(positive),
        "audio.distill": draw(distillations),
        "video.patience": draw(st.none() | st.integers(1, 99)),
        "fusion.dropout": draw(st.floats(0, 1, exclude_max=True)),
        "fusion.changes": draw(st.dictionaries(st.integers(1, 99), changed, max_size=3)),
        "resources.fusion.memory": draw(st.none() | st.integers(0, 2**40)),
    }
    return with_values(Config(), values)


def _absolute(text: str) -> str:
    return str(Path("/", text.replace("\0", "")).resolve())


@given(config=configs())
@settings(max_examples=50, deadline=None)
def test_dump_and_load(tmp_path_factory: pytest.TempPathFactory, config: Config) -> None:
    path = tmp_path_factory.getbasetemp() / "dumped.yaml"
    path.write_text(dump_yaml(config), encoding="utf-8")
    assert load_config(path) == config


@pytest.mark.parametrize("name", ["1e5", "007", "1_0", "null", "true", "2024-01-01", "0x1F", "inf"])
def test_names_that_look_like_something_else(tmp_path: Path, name: str) -> None:
    config = with_values(Config(), {"name": name})
    assert load_config(write(tmp_path / "a.yaml", dump_yaml(config))) == config


@given(config=configs())
@settings(max_examples=50, deadline=None)
def test_json_is_canonical(config: Config) -> None:
    tree = json.loads(config.model_dump_json())
    assert Config.model_validate(tree) == config


# --- fusion: recipes and modalities -----------------------------------------------------------

PUBLISHED = {
    "model": "magt",
    "hidden_dim": 768,
    "num_heads": 8,
    "depth": 1,
    "epochs": 30,
    "batch_size": 16,
    "accumulation": 1,
    "optimizer": "adamw",
    "learning_rate": 1e-4,
    "weight_decay": 1e-6,
    "dropout": 0.5,
    "gradient_norm": 10.0,
    "schedule": "published",
    "detach_anchor": False,
    "class_weights": "none",
    "temperature": 2.0,
    "feature_temperature": 1.0,
    "inter_weight": 1.0,
    "intra_weight": 1.0,
    "changes": {},
}


@pytest.mark.parametrize(
    ("recipe", "weights"),
    [
        ("published_meld", {"audio_weight": 0.01, "video_weight": 0.08, "feature_weight": 0.0}),
        ("published_iemocap", {"audio_weight": 0.7, "video_weight": 0.8, "feature_weight": 1.0}),
    ],
)
def test_a_recipe_stands_for_its_values(recipe: str, weights: dict[str, float]) -> None:
    section = FusionConfig(recipe=recipe)
    values = section.model_dump()
    assert values["recipe"] is None
    assert values.items() >= (PUBLISHED | weights).items()
    assert section == FusionConfig.model_validate(values)


def test_what_makes_a_baseline_may_stand_beside_a_recipe() -> None:
    values = {"gate": "none", "anchor": False, "modalities": "text", "inputs": "table"}
    section = FusionConfig(recipe="published_meld", epochs=30, **values)
    assert section.model_dump().items() >= (values | {"hidden_dim": 768}).items()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"epochs": 5},
            r"recipe published_meld sets epochs to 30, but beside it epochs is 5; leave",
        ),
        ({"accumulation": 2}, r"sets accumulation to 1, but beside it accumulation is 2"),
        ({"changes": {2: {"dropout": 0.1}}}, r"sets changes to \{\}, but beside it changes is"),
        ({"model": "sdt"}, r"sets model to 'magt', but beside it model is 'sdt'"),
        ({"audio_weight": 0.7}, r"sets audio_weight to 0\.01, but beside it audio_weight is 0\.7"),
    ],
)
def test_a_value_that_differs_from_the_recipe_is_refused(
    values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=rf"^here: fusion: .*{message}"):
        validate(Config, {"fusion": {"recipe": "published_meld"} | values}, "here")
    with pytest.raises(
        ConfigError, match=r"fusion\.recipe: must be one of 'published_meld', .* got 'published'"
    ):
        validate(Config, {"fusion": {"recipe": "published"}}, "here")


def test_a_resolved_recipe_is_a_start(tmp_path: Path) -> None:
    file = write(tmp_path / "a.yaml", "fusion: {recipe: published_meld}")
    config = load_config(file)
    assert load_config(write(tmp_path / "b.yaml", dump_yaml(config))) == config
    assert with_values(config, {"fusion.epochs": 3}).fusion.hidden_dim == 768


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("text", "text"),
        (["audio", "text"], "text+audio"),
        ("video+audio", "audio+video"),
        (["video", "audio", "text"], "text+audio+video"),
        (None, None),
    ],
)
def test_modalities_in_order(given: Any, read: str | None) -> None:
    section = FusionConfig(modalities=given)
    assert section.modalities == read
    assert section.fused_modalities == (tuple(read.split("+")) if read else None)


@pytest.mark.parametrize("given", ["", "speech", ["text", "text"], [], ["text", "speech"], 3])
def test_wrong_modalities(given: Any) -> None:
    with pytest.raises(ConfigError, match=r"fusion\.modalities: must be one of 'text', .*, got "):
        validate(Config, {"fusion": {"modalities": given}}, "here")


EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.mark.parametrize("corpus", ["meld", "iemocap"])
def test_published_experiments(corpus: str) -> None:
    magt = load_config(EXPERIMENTS / f"published_{corpus}.yaml").fusion
    assert magt == FusionConfig(recipe=f"published_{corpus}", inputs="table")
    for name in ("published", "sdt"):
        data = load_config(EXPERIMENTS / f"{name}_{corpus}.yaml").data
        assert (data.speakers, data.standardise) == ("published", False)
    sdt = load_config(EXPERIMENTS / f"sdt_{corpus}.yaml").fusion
    assert (sdt.model, sdt.hidden_dim, sdt.num_heads, sdt.depth) == ("sdt", 1024, 8, 1)
    gate, temperature = {"meld": ("identity", 8.0), "iemocap": ("learned", 1.0)}[corpus]
    assert (sdt.gate, sdt.temperature) == (gate, temperature)


def test_initial_is_relative_to_its_file(tmp_path: Path) -> None:
    file = write(tmp_path / "sub/a.yaml", "fusion: {initial: ../w.safetensors}")
    assert load_config(file).fusion.initial == str(tmp_path / "w.safetensors")
    override = load_config(file, ["fusion.initial=w.safetensors"]).fusion.initial
    assert override == str(Path.cwd() / "w.safetensors")


# --- values at the edge of their types --------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("teacher: {hidden_dim: true}", r"teacher\.hidden_dim: must be an integer, got true"),
        ("teacher: {patience: false}", r"teacher\.patience: must be an integer, got false"),
        ("teacher: {dropout: false}", r"teacher\.dropout: must be a number, got false"),
        ("resources: {fusion: {custom: {x: true}}}", r"custom\.x: must be a number, got true"),
        ("teacher: {hidden_dim: 010}", "line 1: 010 is another number in each version of YAML"),
        ("teacher: {hidden_dim: 1:30}", "line 1: 1:30 is another number in each version of YAML"),
        ("teacher: {hidden_dim: 9223372036854775808}", "must be <= 65536, got 9223372036854775808"),
        ("fusion: {depth: 100000}", "must be <= 1000, got 100000"),
        ("fusion: {epochs: 2147483648}", "must be < 2147483648, got 2147483648"),
        ("teacher: {max_length: 10000000}", "must be <= 1048576"),
        ("teacher: {context: 2147483648}", "must be < 2147483648"),
        ("resources: {fusion: {cpu: 1e300}}", r"must be <= 100000, got 1e\+300"),
        ("resources: {fusion: {memory: 100000000000000000000}}", "must be < 9223372036854775808"),
        ("data: {synthetic: {mean_length: 1e18}}", "must be <= 10000"),
    ],
)
def test_values_at_the_edge_of_their_types(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config(tmp_path / "a.yaml")


def test_a_whole_number_may_be_written_with_a_point(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("teacher: {hidden_dim: 32.0, context: 0.0, encoder: tiny}")
    teacher = load_config(tmp_path / "a.yaml").teacher
    assert (teacher.hidden_dim, teacher.context) == (32, 0)


@pytest.mark.parametrize(
    "text",
    [
        "a: " + "[" * 3000 + "]" * 3000,
        "{a: " * 3000 + "1" + "}" * 3000,
        "\n".join("  " * depth + "a:" for depth in range(3000)),
    ],
    ids=["lists", "mappings", "blocks"],
)
def test_files_that_are_too_deep(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(
        ConfigError, match=r"a\.yaml, line \d+: it is nested deeper than 100 levels"
    ):
        load_config(tmp_path / "a.yaml")
    if "\n" not in text:
        with pytest.raises(ConfigError, match="it is nested deeper than 100 levels"):
            load_config(None, [f"teacher.hidden_dim={text}"])


def test_too_many_files_that_extend_each_other(tmp_path: Path) -> None:
    for number in range(1500):
        (tmp_path / f"{number}.yaml").write_text(f"extends: {number + 1}.yaml\n")
    (tmp_path / "1500.yaml").write_text("seed: 1\n")
    with pytest.raises(ConfigError, match="more than 100 files that extend each other; put their"):
        load_config(tmp_path / "0.yaml")
    assert load_config(tmp_path / "1450.yaml").seed == 1


LONG, KEY = "x" * 70_000, "x" * 900  # YAML has no longer keys


@pytest.mark.parametrize(
    ("text", "overrides"),
    [
        (f"name: {LONG}", []),
        (f"teacher: {{{KEY}: 1}}", []),
        (f"teacher: {{encoder: [{LONG}]}}", []),
        (f"fusion: {{changes: {{1: {{{KEY}: 1}}}}}}", []),
        (f"fusion: {{recipe: published_meld, model: {LONG}}}", []),
        (f"extends: {LONG}", []),
        (f"resources: {{fusion: {{label_selector: {{{KEY}: '?'}}}}}}", []),
        ("{}", [LONG]),
        ("{}", [f"{LONG}=1"]),
        ("{}", [f"teacher.{LONG}=1"]),
        ("{}", [f"teacher.hidden_dim={LONG}"]),
        ("{}", [f"teacher.hidden_dim=[{LONG}"]),
    ],
)
def test_messages_cut_long_values(tmp_path: Path, text: str, overrides: list[str]) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"x{10}") as raised:
        load_config(tmp_path / "a.yaml", overrides)
    assert len(str(raised.value).replace(str(tmp_path), "")) < 1000
