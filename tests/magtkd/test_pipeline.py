from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from magtkd import pipeline
from magtkd.config import Config, StageResources, get_value, names_of, with_values
from magtkd.data import read_corpus
from magtkd.errors import ConfigError, DataError, DivergedError
from magtkd.pipeline import (
    CORE_TRAINER,
    STAGES,
    OpenSession,
    Source,
    StageRecord,
    find_stage,
    make_plan,
    members,
    run_chain,
    source_of,
)
from magtkd.store import Artifact, Store
from tests.reads import is_read

MakeConfig = Callable[..., Config]
CLIPS = {"audio": "a0", "video": "b1"}
ALL = Source("f1e2d3", ("text", "audio", "video"), CLIPS)
TRAINED = ("teacher", "audio", "video", "fusion")
WITHOUT_CLIPS = ("data", *TRAINED)
# With encoders that have a prompt and clips, and heads and widths that have room to change.
BASE = with_values(
    Config(),
    {
        "teacher.encoder": "tiny",
        "data.synthetic": {},
        "audio.encoder": "an/encoder",
        "video.encoder": "a/watcher",
        "video_media": {"num_frames": 4, "image_size": 8},
    },
)
DOWNSTREAM = {
    "data": set(WITHOUT_CLIPS),
    "teacher": set(TRAINED),
    "audio_media": {"audio_media", "audio", "fusion"},
    "video_media": {"video_media", "video", "fusion"},
    "audio": {"audio", "fusion"},
    "video": {"video", "fusion"},
    "fusion": {"fusion"},
}
CANDIDATES: tuple[Any, ...] = (
    {"zone": "b"},
    {"licence": 1.0},
    {"large": {"cpu": 8}},
    *(None, True, False, 0.25, 1, 2, 3, 16, 24, 32, 96, 0.0625, {4: {"dropout": 0.25}}),
    *("balanced", "loss", "accuracy", "linear", "published", "bfloat16", "float16", "prompt"),
    *("features", "some/model", "concat", "name", "another", "silence", "black", "never", "mean"),
    *("head", 1600, "identity", "adam", "none"),
)
# Which stages there are, and what stands for other values, is tested in test_plan.py.
ELSEWHERE = {"fusion.recipe", "fusion.inputs", "fusion.modalities", "fusion.initial"}
# Another place changes nothing, but what is there does; see below.
PLACES = {"data.path", "data.media"}
NAMES = [name for name in names_of() if name not in PLACES | ELSEWHERE]
# Without an encoder there are no clips; and null asks the encoder, of which there is none here.
NOT_HERE = {(f"{modality}.encoder", "features") for modality in ("audio", "video")} | {
    (f"video_media.{name}", None) for name in ("num_frames", "image_size")
}


def legal_changes(name: str) -> list[Config]:
    """Configurations that differ from the base in one value."""
    found = []
    for candidate in CANDIDATES:
        if isinstance(candidate, str | None) and (name, candidate) in NOT_HERE:
            continue
        try:
            config = with_values(BASE, {name: candidate})
        except ConfigError:
            continue
        if get_value(config, name) != get_value(BASE, name):
            found.append(config)
    return found


def expected_changes(name: str, config: Config) -> set[str]:
    """The stages that get another key where `config` has another value than the base under this
    name."""
    section = name.partition(".")[0]
    if not is_read(BASE, name, ALL) and not is_read(config, name, ALL):
        return set()
    if section in {"seed", "seeds"}:
        other = [stage for stage in WITHOUT_CLIPS if config.seed_of(stage) != BASE.seed_of(stage)]
        return set[str]().union(*(DOWNSTREAM[stage] for stage in other))
    if section in {"name", "resources"} or name.startswith("data.synthetic."):
        return set()
    return DOWNSTREAM[section]


def changed_stages(first: Config, second: Config, source: Source = ALL) -> set[str]:
    one, other = make_plan(first, source).keys, make_plan(second, source).keys
    return {stage for stage in one if one[stage] != other[stage]}


# --- keys -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_keys_change_exactly_downstream_of_a_change(name: str) -> None:
    configs = legal_changes(name)
    assert configs, f"no other legal value of {name} among the candidates"
    for config in configs:
        assert changed_stages(BASE, config) == expected_changes(name, config)


@given(changes=st.dictionaries(st.sampled_from(NAMES), st.sampled_from(CANDIDATES), max_size=5))
@settings(deadline=None)
def test_keys_of_several_changes_add_up(changes: dict[str, Any]) -> None:
    try:
        config = with_values(BASE, changes)
    except ConfigError:
        return
    if config.audio.distill is None or config.video.distill is None:
        return
    if any((name, get_value(config, name)) in NOT_HERE for name, _ in NOT_HERE):
        return
    differing = {name for name in NAMES if get_value(config, name) != get_value(BASE, name)}
    expected = set().union(*(expected_changes(name, config) for name in differing))
    assert changed_stages(BASE, config) == expected


def test_where_the_table_came_from_is_in_no_key() -> None:
    config = with_values(
        BASE,
        {"data.synthetic": None, "data.path": "/somewhere/t.parquet", "data.media": "/elsewhere"},
    )
    assert changed_stages(BASE, config) == set()


def test_another_table_changes_all_keys() -> None:
    one = make_plan(BASE, ALL).keys
    other = make_plan(BASE, Source("000000", ALL.with_features, CLIPS)).keys
    assert not set(one.values()) & set(other.values())


def test_other_clips_change_what_is_downstream_of_them() -> None:
    one = make_plan(BASE, ALL).keys
    other = make_plan(BASE, Source("f1e2d3", ALL.with_features, CLIPS | {"audio": "c2"})).keys
    assert {stage for stage in one if one[stage] != other[stage]} == DOWNSTREAM["audio_media"]


def test_a_student_without_distillation_does_not_depend_on_the_teacher() -> None:
    alone = with_values(BASE, {"audio.distill": None})
    other = with_values(alone, {"teacher.hidden_dim": 32})
    assert changed_stages(alone, other) == {"teacher", "video", "fusion"}
    assert make_plan(alone, ALL).reads["audio"] == ("data", "audio_media")


@pytest.mark.parametrize("stage", STAGES)
def test_a_new_version_of_a_stages_code_changes_its_key(
    monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    before = make_plan(BASE, ALL).keys
    newer = replace(find_stage(stage), version=99)
    monkeypatch.setitem(members.REGISTRY, stage, newer)
    after = make_plan(BASE, ALL).keys
    assert {name for name in before if before[name] != after[name]} == DOWNSTREAM[stage]


def test_planning_loads_no_torch() -> None:
    code = (
        "import pickle, sys; from magtkd.pipeline import *; from magtkd.config import Config;"
        "make_plan(Config(), Source('f', ('text',)));"
        "assert pickle.loads(pickle.dumps(CORE_TRAINER)) == CORE_TRAINER;"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_every_stage_has_its_section_and_its_resources() -> None:
    for name in STAGES:
        stage = find_stage(name)
        assert stage.name == name
        assert stage.section(BASE) is getattr(BASE, name)
        assert (stage.resources(BASE) is None) == (name == "data")
    assert set(StageResources.STAGES) == {*STAGES} - {"data"}


def test_clips_are_read_by_their_student_alone() -> None:
    reads = make_plan(BASE, ALL).reads
    assert tuple(reads) == STAGES
    assert reads["audio_media"] == ("data",)
    assert reads["audio"] == ("data", "teacher", "audio_media")
    assert reads["fusion"] == ("data", "teacher", "audio", "video")


@pytest.mark.parametrize("modality", ["audio", "video"])
def test_an_encoder_without_clips_is_an_error_that_says_so(modality: str) -> None:
    config = with_values(Config(), {f"{modality}.encoder": "an/encoder"})
    with pytest.raises(
        DataError, match=f"{modality}.encoder is 'an/encoder', but the table has no"
    ):
        make_plan(config, Source("f", ("text", "audio", "video")))


def test_clips_that_are_not_there_are_an_error_where_they_are_read() -> None:
    source = replace(ALL, absent={"video": "data.media: nowhere has none of them"})
    with pytest.raises(DataError, match="nowhere has none of them"):
        make_plan(BASE, source)
    config = with_values(BASE, {"video.encoder": "features"})
    assert "video_media" not in make_plan(config, source).keys


def test_equal_numbers_give_equal_keys() -> None:
    whole = {"fusion.learning_rate": 1, "fusion.changes": {2: {"temperature": 3}}}
    real = {"fusion.learning_rate": 1.0, "fusion.changes": {"2": {"temperature": 3.0}}}
    assert changed_stages(with_values(BASE, whole), with_values(BASE, real)) == set()


def test_a_model_folder_counts_by_its_content(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    one, two = (
        with_values(BASE, {"teacher.encoder": str(tmp_path / name)}) for name in ("one", "two")
    )
    assert changed_stages(one, two) == set()
    (tmp_path / "two" / "config.json").write_text('{"a": 1}')
    assert changed_stages(one, two) == DOWNSTREAM["teacher"]


@pytest.mark.parametrize("encoder", ["features", "tiny"])
def test_a_folder_with_an_encoders_name_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoder: str
) -> None:
    config = with_values(Config(), {"teacher.encoder": encoder})
    before = make_plan(config, ALL)
    (tmp_path / encoder).mkdir()
    monkeypatch.chdir(tmp_path)
    assert make_plan(config, ALL) == before


# --- plans ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("features", "encoder", "stages"),
    [
        (("text", "audio", "video"), "features", WITHOUT_CLIPS),
        (("text",), "features", ("data", "teacher", "fusion")),
        (("audio",), "features", ("data", "audio", "fusion")),
        (("audio",), "tiny", ("data", "teacher", "audio", "fusion")),
        (("text", "video"), "features", ("data", "teacher", "video", "fusion")),
        ((), "tiny", ("data", "teacher", "fusion")),
    ],
)
def test_stages_follow_the_modalities(
    features: tuple[str, ...], encoder: str, stages: tuple[str, ...]
) -> None:
    config = with_values(Config(), {"teacher.encoder": encoder})
    plan = make_plan(config, Source("f", features))
    assert tuple(plan.keys) == stages
    assert plan.upstream == stages[:-1]
    assert plan.reads["fusion"] == stages[:-1]


def test_no_modality() -> None:
    with pytest.raises(DataError, match=r"no text_features and no other modality; set teacher\.e"):
        make_plan(Config(), Source("f", ()))


# --- the chain --------------------------------------------------------------------------------


def outcomes(config: Config, store: Store, **options: Any) -> dict[str, str]:
    records: dict[str, StageRecord] = {}
    run_chain(config, store, on_stage=records.__setitem__, **options)
    return {stage: record.outcome for stage, record in records.items()}


def test_reuse(tmp_path: Path, tiny_config: MakeConfig) -> None:
    store = Store(tmp_path)
    assert outcomes(tiny_config(), store) == dict.fromkeys(WITHOUT_CLIPS, "trained")
    assert outcomes(tiny_config(), store) == dict.fromkeys(WITHOUT_CLIPS, "reused")
    changed = outcomes(tiny_config({"audio.dropout": 0.25}), store)
    expected = dict.fromkeys(WITHOUT_CLIPS, "reused") | {"audio": "trained", "fusion": "trained"}
    assert changed == expected
    assert outcomes(tiny_config(), store, reuse=False) == dict.fromkeys(WITHOUT_CLIPS, "trained")


class _NotingTrainer:
    """A trainer whose sessions are the core's, and that notes what it was asked for."""

    def __init__(self) -> None:
        self.opened: list[str] = []

    def open_session(self, stage: str, *arguments: Any) -> OpenSession:
        self.opened.append(stage)
        return CORE_TRAINER.open_session(stage, *arguments)

    def artifact_of(self, *arguments: Any) -> Artifact:
        return replace(CORE_TRAINER.artifact_of(*arguments), metrics={"seconds": 0.0})


def test_another_trainer(tiny_config: MakeConfig) -> None:
    config, trainer = tiny_config(), _NotingTrainer()
    plan = make_plan(config, source_of(read_corpus(config.data)))
    data = pipeline.train_stage("data", config, plan, {}, trainer=trainer)
    teacher = pipeline.train_stage("teacher", config, plan, {"data": data}, trainer=trainer)
    assert trainer.opened == ["teacher"]
    assert teacher.metrics == {"seconds": 0.0}


def test_records_and_reports(tmp_path: Path, tiny_config: MakeConfig) -> None:
    store, config = Store(tmp_path), tiny_config()
    records: dict[str, StageRecord] = {}
    epochs: list[tuple[str, int]] = []
    artifacts = run_chain(
        config,
        store,
        report=lambda stage, report: epochs.append((stage, report.epoch)),
        on_stage=records.__setitem__,
    )
    expected = [(stage, n) for stage in ("teacher", "audio", "video") for n in (1, 2)]
    assert epochs == expected + [("fusion", n) for n in (1, 2, 3)]
    plan = make_plan(config, source_of(read_corpus(config.data)))
    assert {stage: record.key for stage, record in records.items()} == plan.keys
    for stage, record in records.items():
        assert record.seconds == artifacts[stage].metrics["seconds"]
        # As in a sweep, which counts what its reuse saves by them.
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
        in_engine = stage == "data"
        assert (record.device, record.share) == ((None, None) if in_engine else (device, 1.0))
        assert (record.samples_per_second or 0) > 0
        assert (record.peak_memory or 0) > 0
        assert store.read(stage, record.key) == artifacts[stage]
        section = getattr(config, stage).model_dump(mode="json")
        assert artifacts[stage].config["section"] == section
    again: dict[str, StageRecord] = {}
    run_chain(config, store, on_stage=again.__setitem__)
    assert again["fusion"] == StageRecord(
        plan.keys["fusion"],
        "reused",
        0.0,
        records["fusion"].seconds,
        device=records["fusion"].device,
        share=1.0,
    )


def test_artifacts_carry_each_utterance(tmp_path: Path, tiny_config: MakeConfig) -> None:
    artifacts = run_chain(tiny_config({"teacher.hidden_dim": 10}), Store(tmp_path))
    data = artifacts["data"].table
    for stage, width in (("teacher", 10), ("audio", 6), ("video", 6), ("fusion", 6)):
        table = artifacts[stage].table
        for column in ("split", "dialogue_id", "utterance_id"):
            assert table[column].equals(data[column])
        assert table.schema.field("features").type == pa.list_(pa.float32(), width)
        assert table.schema.field("logits").type == pa.list_(pa.float32(), 3)


def test_reports_never_show_test(tmp_path: Path, tiny_config: MakeConfig) -> None:
    artifacts = run_chain(tiny_config(), Store(tmp_path))
    for stage in TRAINED:
        assert "test" not in artifacts[stage].metrics
        for report in artifacts[stage].metrics["reports"]:
            assert not [name for name in report["metrics"] if "test" in name]


def test_same_seed_same_bits(tmp_path: Path, tiny_config: MakeConfig) -> None:
    one, two = (run_chain(tiny_config(), Store(tmp_path / name)) for name in ("one", "two"))
    other = run_chain(tiny_config({"seed": 1}), Store(tmp_path / "other"))
    for stage in WITHOUT_CLIPS:
        assert one[stage].table.equals(two[stage].table)
        assert one[stage].weights == two[stage].weights
        if stage != "data":
            assert one[stage].metrics["reports"] == two[stage].metrics["reports"]
            assert one[stage].weights != other[stage].weights


def test_a_stage_with_a_seed_of_its_own_is_the_one_of_that_seed(
    tmp_path: Path, tiny_config: MakeConfig
) -> None:
    """Fusion is repeated with another seed, and what it reads has the keys that it had."""
    held = dict.fromkeys(("seeds.data", "seeds.teacher", "seeds.audio", "seeds.video"), 0)
    store = Store(tmp_path)
    first, other = (
        run_chain(tiny_config(), store),
        run_chain(tiny_config(held | {"seed": 1}), store),
    )
    for stage in WITHOUT_CLIPS:
        assert (other[stage].key == first[stage].key) == (stage != "fusion")
    assert other["fusion"].weights != first["fusion"].weights
    alone = tiny_config({"seeds.fusion": 1})
    again = run_chain(alone, Store(tmp_path / "again"))["fusion"]
    assert (again.key, again.weights) == (other["fusion"].key, other["fusion"].weights)


def test_students_leave_the_teacher_alone(tmp_path: Path, tiny_config: MakeConfig) -> None:
    config, store = tiny_config(), Store(tmp_path)
    corpus = read_corpus(config.data)
    plan = make_plan(config, source_of(corpus))
    data = pipeline.train_stage("data", config, plan, {}, corpus=corpus)
    teacher = pipeline.train_stage("teacher", config, plan, {"data": data})
    before = _digest(teacher.table), hashlib.sha256(teacher.weights).digest()
    audio = pipeline.train_stage("audio", config, plan, {"data": data, "teacher": teacher})
    assert (_digest(teacher.table), hashlib.sha256(teacher.weights).digest()) == before
    store.write(audio)
    alone = tiny_config({"audio.distill": None})
    plan = make_plan(alone, source_of(corpus))
    other = pipeline.train_stage("audio", alone, plan, {"data": data})
    assert other.weights != audio.weights


def _digest(table: pa.Table) -> str:
    buffers = [
        buffer
        for column in table.itercolumns()
        for chunk in column.chunks
        for buffer in chunk.buffers()
    ]
    return hashlib.sha256(b"".join(bytes(buffer) for buffer in buffers if buffer)).hexdigest()


DAMAGES = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "bit flipped": lambda path: path.write_bytes(
        path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1])
    ),
    "empty": lambda path: path.write_bytes(b""),
    "missing": lambda path: path.unlink(),
}
FILES = ("features.arrow", "weights.safetensors", "metrics.json", "config.json")


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", FILES)
def test_a_damaged_artifact_is_quarantined_and_retrained(
    file: str, damage: str, tmp_path: Path, tiny_config: MakeConfig
) -> None:
    store, config = Store(tmp_path), tiny_config()
    before = run_chain(config, store)
    damaged = Path(store.folder("video", before["video"].key)) / file
    DAMAGES[damage](damaged)
    warned: list[str] = []
    records: dict[str, StageRecord] = {}
    after = run_chain(config, store, on_stage=records.__setitem__, warn=warned.append)
    assert {stage for stage, one in records.items() if one.outcome == "trained"} == {"video"}
    assert after["video"].weights == before["video"].weights
    (message,) = warned
    assert message.startswith(f"{damaged}: the file is ")
    assert message.endswith("the stage is retrained")
    (aside,) = (tmp_path / "damaged").iterdir()
    assert str(aside) in message
    assert store.read("video", before["video"].key).table == before["video"].table


def test_a_folder_that_has_lost_its_manifest_is_no_artifact(
    tmp_path: Path, tiny_config: MakeConfig
) -> None:
    store, config = Store(tmp_path), tiny_config()
    key = run_chain(config, store)["video"].key
    manifest = Path(store.folder("video", key)) / "manifest.json"
    manifest.unlink()
    warned: list[str] = []
    assert run_chain(config, store, warn=warned.append)["video"].key == key
    assert warned[0].startswith(f"{manifest}: the file is missing; quarantined as ")
    assert store.read("video", key).stage == "video"
    assert len(list((tmp_path / "damaged").iterdir())) == 1


def test_a_stage_that_was_interrupted_continues_from_its_checkpoint(
    tmp_path: Path, tiny_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("magtkd.store.checkpoints.SECONDS", 0.0)
    monkeypatch.setattr("magtkd.store.checkpoints.SHARE", 1e9)
    store, config = Store(tmp_path / "one"), tiny_config({"fusion.epochs": 5})
    whole = run_chain(config, Store(tmp_path / "other"))
    seen: list[tuple[str, int]] = []

    def interrupt(stage: str, report: Any) -> None:
        seen.append((stage, report.epoch))
        if (stage, report.epoch) == ("fusion", 4):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_chain(config, store, report=interrupt)
    seen.clear()
    after = run_chain(
        config, store, report=lambda stage, report: seen.append((stage, report.epoch))
    )
    assert seen == [("fusion", 4), ("fusion", 5)]  # epoch 4 was over, but not yet saved
    assert after["fusion"].weights == whole["fusion"].weights
    assert after["fusion"].metrics["reports"] == whole["fusion"].metrics["reports"]
    assert not list((tmp_path / "one/sessions/stages").iterdir())


def test_a_diverged_stage_leaves_nothing(tmp_path: Path, tiny_config: MakeConfig) -> None:
    config = tiny_config({"audio.learning_rate": 1e30, "audio.gradient_norm": 1e30})
    with pytest.raises(DivergedError, match="audio: diverged: the loss was nan in epoch 1, step"):
        run_chain(config, Store(tmp_path))
    assert sorted(os.listdir(tmp_path / "artifacts")) == ["data", "teacher"]
    assert not list((tmp_path / "tmp").iterdir())


# --- missing modalities -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("without", "stages"),
    [
        (("audio_features", "video_features"), ("data", "teacher", "fusion")),
        (("text_features", "video_features"), ("data", "audio", "fusion")),
        (("audio_features",), ("data", "teacher", "video", "fusion")),
        (("text_features",), ("data", "audio", "video", "fusion")),
    ],
)
@pytest.mark.parametrize("model", ["magt", "concat"])
@pytest.mark.filterwarnings("ignore:.*distill is ignored")
def test_missing_modalities(
    tmp_path: Path,
    tiny_config: MakeConfig,
    tiny_parquet: Callable[..., Path],
    without: tuple[str, ...],
    stages: tuple[str, ...],
    model: str,
) -> None:
    values = {
        "data": {"path": str(tiny_parquet(*without))},
        "fusion.model": model,
        "fusion.feature_weight": 1.0,
    }
    artifacts = run_chain(tiny_config(values), Store(tmp_path))
    assert tuple(artifacts) == stages
    assert 0 <= artifacts["fusion"].metrics["dev"]["weighted_f1"] <= 1


def test_distill_without_a_teacher_warns(
    tmp_path: Path, tiny_config: MakeConfig, tiny_parquet: Callable[..., Path]
) -> None:
    path = tiny_parquet("text_features", "video_features")
    with pytest.warns(UserWarning, match=r"audio\.distill is ignored: there is no teacher"):
        run_chain(tiny_config({"data": {"path": str(path)}}), Store(tmp_path))


@pytest.mark.parametrize("missing", ["dev", "test"])
def test_missing_split(
    tmp_path: Path, tiny_config: MakeConfig, tiny_table: pa.Table, missing: str
) -> None:
    from magtkd.data import write_parquet

    keep = [split != missing for split in tiny_table["split"].to_pylist()]
    write_parquet(tiny_table.filter(pa.array(keep)), tmp_path / "t.parquet")
    config = tiny_config({"data": {"path": str(tmp_path / "t.parquet")}})
    artifacts = run_chain(config, Store(tmp_path / "store"))
    assert artifacts["fusion"].table.num_rows == sum(keep)


# --- text encoders ----------------------------------------------------------------------------


@pytest.mark.parametrize("prompt_length", [0, 3])
@pytest.mark.parametrize("train", ["full", "prompt"])
def test_tiny_teacher(
    tmp_path: Path,
    tiny_config: MakeConfig,
    tiny_parquet: Callable[..., Path],
    prompt_length: int,
    train: str,
) -> None:
    path = tiny_parquet("text_features", "audio_features", "video_features")
    values = {
        "data": {"path": str(path)},
        "teacher.encoder": "tiny",
        "teacher.epochs": 1,
        "teacher.max_length": 48,
        "teacher.context": 1,
        "teacher.prompt_length": prompt_length,
        "teacher.train": train,
    }
    artifacts = run_chain(tiny_config(values), Store(tmp_path))
    assert tuple(artifacts) == ("data", "teacher", "fusion")
    assert artifacts["teacher"].table.schema.field("features").type.list_size == 6


def test_prompt_with_features_is_an_error_that_says_so(tiny_config: MakeConfig) -> None:
    with pytest.raises(ConfigError, match="prompt_length is 3, but encoder 'features' has no pro"):
        tiny_config({"teacher.prompt_length": 3})


# --- real data --------------------------------------------------------------------------------


@pytest.mark.slow
def test_mosi(tmp_path: Path, data_folder: Path) -> None:
    values: dict[str, Any] = {"data.path": str(data_folder / "mosi/mosi.parquet")}
    values |= {f"{stage}.epochs": 2 for stage in TRAINED}
    values |= {f"{stage}.hidden_dim": 32 for stage in TRAINED}
    values |= {"fusion.learning_rate": 1e-3}
    artifacts = run_chain(with_values(Config(), values), Store(tmp_path))
    scores = cast(dict[str, Any], artifacts["fusion"].metrics["dev"])
    assert set(scores["per_class"]) == {"negative", "positive"}
    assert scores["accuracy"] > 0.5
