from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from magtkd.config import Config
from magtkd.data import MODALITIES, list_matrix
from magtkd.data.columns import features_column
from magtkd.errors import ConfigError
from magtkd.pipeline import CoreTrainer, find_stage, run_chain
from magtkd.stages.inputs import Inputs
from magtkd.store import Artifact, Store
from magtkd.training import Session, TrainResult

MakeConfig = Callable[..., Config]
OpenSession = Callable[..., Session[Any, Any]]
STAGES = ("teacher", "audio", "video", "fusion")


@pytest.fixture(scope="module")
def artifacts(
    tmp_path_factory: pytest.TempPathFactory, tiny_config: MakeConfig
) -> dict[str, Artifact]:
    return run_chain(tiny_config(), Store(tmp_path_factory.mktemp("store")))


@pytest.fixture
def start(artifacts: dict[str, Artifact], tiny_config: MakeConfig) -> OpenSession:
    def make(stage: str, values: dict[str, Any] | None = None) -> Session[Any, Any]:
        reads = [name for name in artifacts if name != stage]
        upstream = {name: artifacts[name] for name in reads}
        return CoreTrainer("cpu").open_session(stage, tiny_config(values), upstream)

    return make


def assert_same(one: TrainResult, other: TrainResult) -> None:
    assert one.metrics["reports"] == other.metrics["reports"]
    assert one.metrics["epoch"] == other.metrics["epoch"]
    assert np.array_equal(one.logits, other.logits)
    assert np.array_equal(one.features, other.features)
    assert one.weights == other.weights


VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "linear": {"fusion.schedule": "linear", "fusion.epochs": 4},
    "published": {"fusion.schedule": "published", "fusion.dropout": 0.75},
    "changes": {"fusion.changes": {2: {"learning_rate": 0.02, "dropout": 0.1, "temperature": 3}}},
    "patience": {"fusion.patience": 1, "fusion.epochs": 9},
    "concat": {"fusion.model": "concat", "fusion.select": "loss"},
    "sdt": {"fusion.model": "sdt"},
    "sdt, changes": {
        "fusion.model": "sdt",
        "fusion.gate": "identity",
        "fusion.changes": {2: {"temperature": 8.0, "distill_weight": 0.5, "fused_weight": 2.0}},
    },
    "without an anchor": {"fusion.anchor": False},
    "without gates": {"fusion.gate": "none"},
    "a pair": {"fusion.modalities": "audio+video"},
    "of the table": {"fusion.inputs": "table"},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_checkpoint_and_restore_midway(start: OpenSession, variant: str) -> None:
    values = VARIANTS[variant]
    whole = start("fusion", values).run()
    session = start("fusion", values)
    while not session.is_done:
        checkpoint = session.checkpoint()
        session = start("fusion", values)
        torch.rand(7)  # what happens in between must not matter
        session.restore(checkpoint)
        session.advance()
    assert_same(session.result(), whole)


@pytest.mark.parametrize("stage", STAGES[:3])
def test_checkpoint_and_restore_of_the_other_stages(start: OpenSession, stage: str) -> None:
    whole = start(stage).run()
    first = start(stage)
    first.advance()
    second = start(stage)
    second.restore(first.checkpoint())
    assert second.epoch == 1
    assert second.seconds >= first.seconds
    assert_same(second.run(), whole)


def test_load_under_other_values(start: OpenSession) -> None:
    first = start("fusion")
    first.advance()
    changes = {"fusion.changes": {2: {"learning_rate": 0.05, "dropout": 0.25}}}
    other = start("fusion", {"fusion.learning_rate": 0.05, "fusion.dropout": 0.25})
    other.restore(first.checkpoint())
    assert_same(other.run(), start("fusion", changes).run())


@pytest.mark.parametrize("stage", STAGES)
def test_interleaved_sessions(start: OpenSession, stage: str) -> None:
    alone = [start(stage, {"seed": seed}).run() for seed in (1, 2)]
    together = [start(stage, {"seed": seed}) for seed in (1, 2)]
    while not all(session.is_done for session in together):
        for session in together:
            if not session.is_done:
                session.advance()
    for session, result in zip(together, alone, strict=True):
        assert_same(session.result(), result)
    assert not np.array_equal(alone[0].logits, alone[1].logits)


def test_looking_at_the_result_midway_changes_nothing(start: OpenSession) -> None:
    session = start("fusion")
    session.advance()
    session.result()
    assert_same(session.run(), start("fusion").run())


def test_seconds_add_up(start: OpenSession) -> None:
    session = start("fusion")
    before = session.seconds
    session.advance()
    assert 0 < before < session.seconds
    session.run()
    assert session.result().metrics["seconds"] == session.seconds


# --- the students and their teacher -----------------------------------------------------------


def test_the_teacher_gets_no_gradient(start: OpenSession, artifacts: dict[str, Artifact]) -> None:
    session = start("audio")
    task = session.task
    session.advance()
    for name in ("logits", "features"):
        held = getattr(task._student_loss, f"_teacher_{name}")
        assert not held.requires_grad
        assert held.grad is None
        assert np.array_equal(held.numpy(), list_matrix(artifacts["teacher"].table, name))
    assert not [name for name, _ in task.model.named_parameters() if "teacher" in name]


@pytest.mark.parametrize(
    "values",
    [
        {"audio.distill": None},
        {"audio.distill.logit_weight": 0.0},
        {"audio.distill.feature_weight": 0.0},
        {"audio.distill.logit_weight": 9.0},
        {"audio.distill.temperature": 9.0},
        {"audio.distill.inter_weight": 9.0},
        {"audio.distill.intra_weight": 9.0},
        {"audio.distill.feature_temperature": 9.0},
    ],
)
def test_each_part_of_the_distillation_counts(
    start: OpenSession, artifacts: dict[str, Artifact], values: dict[str, Any]
) -> None:
    other = start("audio", values).run()
    assert not np.array_equal(other.logits, list_matrix(artifacts["audio"].table, "logits"))


def test_without_weights_a_student_is_alone(start: OpenSession) -> None:
    weightless = {"audio.distill.logit_weight": 0.0, "audio.distill.feature_weight": 0.0}
    one = start("audio", weightless).run()
    other = start("audio", {"audio.distill": None}).run()
    assert np.array_equal(one.logits, other.logits)


@pytest.mark.parametrize(("width", "has_bridge"), [(6, False), (11, True)])
def test_student_bridge(start: OpenSession, width: int, has_bridge: bool) -> None:
    result = start("audio", {"audio.hidden_dim": width}).run()
    assert result.features.shape[1] == width
    names = load_tensors(result.weights)
    assert ("bridge.weight" in names) == has_bridge
    if has_bridge:
        assert names["bridge.weight"].shape == (6, width)


# --- fusion -----------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["magt", "concat"])
def test_fusion_bridges_other_widths(tmp_path: Path, tiny_config: MakeConfig, model: str) -> None:
    values = {
        "teacher.hidden_dim": 11,
        "audio.hidden_dim": 14,
        "video.hidden_dim": 5,
        "fusion.hidden_dim": 14,
        "fusion.num_heads": 7,
        "fusion.model": model,
    }
    fusion = run_chain(tiny_config(values), Store(tmp_path))["fusion"]
    shapes = {
        name.split(".")[1]: tuple(tensor.shape)
        for name, tensor in load_tensors(fusion.weights).items()
        if name.startswith("bridges.") and name.endswith("weight")
    }
    assert shapes == {"text": (14, 11), "video": (14, 5)}


@pytest.mark.parametrize(
    "values",
    [
        {"fusion.audio_weight": 5.0},
        {"fusion.video_weight": 5.0},
        {"fusion.feature_weight": 5.0},
        {"fusion.temperature": 5.0},
        {"fusion.inter_weight": 5.0},
        {"fusion.intra_weight": 5.0},
        {"fusion.detach_anchor": True},
        {"fusion.class_weights": "balanced"},
        {"fusion.depth": 2},
        {"fusion.num_heads": 2},
        {"fusion.dropout": 0.0},
        {"fusion.weight_decay": 0.5},
        {"fusion.gradient_norm": 0.01},
        {"fusion.batch_size": 3},
        {"fusion.schedule": "linear"},
        {"fusion.gate": "identity"},
        {"fusion.gate": "none"},
        {"fusion.anchor": False},
        {"fusion.modalities": "text+audio"},
        {"fusion.inputs": "table"},
        {"fusion.model": "sdt"},
    ],
)
def test_each_option_of_fusion_counts(
    start: OpenSession, artifacts: dict[str, Artifact], values: dict[str, Any]
) -> None:
    other = start("fusion", values).run()
    assert other.weights != artifacts["fusion"].weights


@pytest.mark.parametrize(
    "values",
    [
        {"fusion.temperature": 5.0},
        {"fusion.fused_weight": 5.0},
        {"fusion.modality_weight": 5.0},
        {"fusion.distill_weight": 5.0},
        {"fusion.detach_anchor": True},
        {"fusion.class_weights": "balanced"},
        {"fusion.depth": 2},
        {"fusion.gate": "identity"},
        {"fusion.gate": "none"},
    ],
)
def test_each_option_of_sdt_counts(start: OpenSession, values: dict[str, Any]) -> None:
    base = start("fusion", {"fusion.model": "sdt"}).run()
    assert start("fusion", {"fusion.model": "sdt"} | values).run().weights != base.weights


MODALITY_SETS = ("text", "audio", "video", "text+audio", "text+video", "audio+video")


@pytest.mark.parametrize("model", ["magt", "sdt", "concat"])
@pytest.mark.parametrize("modalities", MODALITY_SETS)
def test_what_is_left_out_cannot_influence_the_output(
    artifacts: dict[str, Artifact], tiny_config: MakeConfig, model: str, modalities: str
) -> None:
    """Other features of the modalities left out, or none at all, give the same bits."""
    values = {"fusion.model": model, "fusion.modalities": modalities, "fusion.epochs": 1}
    kept = {"data", *(name for name in STAGES[:3] if str(find_stage(name).modality) in modalities)}
    results = []
    for of_others in ("zero", "as they are", "absent"):
        upstream = {
            stage: silenced(artifact) if of_others == "zero" and stage not in kept else artifact
            for stage, artifact in artifacts.items()
            if stage != "fusion" and (of_others != "absent" or stage in kept)
        }
        session = CoreTrainer("cpu").open_session("fusion", tiny_config(values), upstream)
        results.append(session.run())
    assert_same(results[0], results[1])
    assert_same(results[0], results[2])
    named = {part for name in load_tensors(results[0].weights) for part in name.split(".")}
    assert named & set(MODALITIES) <= set(modalities.split("+"))


def silenced(artifact: Artifact) -> Artifact:
    table = artifact.table
    zeros = features_column(np.zeros_like(list_matrix(table, "features")))
    index = table.column_names.index("features")
    return replace(artifact, table=table.set_column(index, "features", zeros))


@pytest.mark.parametrize("model", ["magt", "sdt", "concat"])
def test_fusion_of_the_tables_features_needs_no_other_stage(
    tmp_path: Path, tiny_config: MakeConfig, model: str
) -> None:
    values = {"fusion.inputs": "table", "fusion.model": model, "fusion.epochs": 1}
    artifacts = run_chain(tiny_config(values), Store(tmp_path))
    assert set(artifacts) == {"data", "fusion"}
    names = load_tensors(artifacts["fusion"].weights)
    maps = "model.inputs" if model == "sdt" else "bridges"
    shapes = {modality: tuple(names[f"{maps}.{modality}.weight"].shape) for modality in MODALITIES}
    assert shapes == {"text": (6, 11), "audio": (6, 7), "video": (6, 5)}


# --- starting from weights --------------------------------------------------------------------


def test_training_goes_on_from_given_weights(
    start: OpenSession, artifacts: dict[str, Artifact], tmp_path: Path
) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(artifacts["fusion"].weights)
    session = start("fusion", {"fusion.initial": str(path)})
    own = session.task.model.state_dict()
    given = load_tensors(artifacts["fusion"].weights)
    assert own.keys() == given.keys()
    assert all(torch.equal(own[name], given[name]) for name in own)
    assert session.run().weights != artifacts["fusion"].weights
    again = start("fusion", {"fusion.initial": str(path)})
    assert_same(again.run(), session.result())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"fusion.depth": 2}, r"layers\.1\..* is absent there and \[.*\] in this model; set the"),
        ({"fusion.hidden_dim": 12}, r"is absent there and \[12, 6\] in this model"),
        ({"fusion.model": "concat"}, r"is absent there and \["),
        ({"fusion.gate": "none"}, r"gate\.linear\..* is \[.*\] there and absent in this model"),
    ],
)
def test_weights_of_another_model_are_refused(
    start: OpenSession,
    artifacts: dict[str, Artifact],
    tmp_path: Path,
    values: dict[str, Any],
    message: str,
) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(artifacts["fusion"].weights)
    with pytest.raises(ConfigError, match=rf"fusion\.initial: {path}: .*{message}"):
        start("fusion", {"fusion.initial": str(path)} | values)


def test_weights_for_other_labels_are_refused(
    start: OpenSession, artifacts: dict[str, Artifact], tmp_path: Path
) -> None:
    path = tmp_path / "weights.safetensors"
    tensors = load_tensors(artifacts["fusion"].weights)
    path.write_bytes(save_tensors(tensors, metadata={"labels": '["joy", "anger"]'}))
    with pytest.raises(ConfigError, match=r'its labels are \["joy", "anger"\]; the corpus has \['):
        start("fusion", {"fusion.initial": str(path)})
    path.write_bytes(b"weights")
    with pytest.raises(ConfigError, match=r"fusion\.initial: .*not a safetensors file"):
        start("fusion", {"fusion.initial": str(path)})


# --- inputs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", STAGES)
def test_balanced_class_weights(
    start: OpenSession, artifacts: dict[str, Artifact], stage: str
) -> None:
    inputs = Inputs(artifacts["data"].table, {})
    count = np.bincount(inputs.label[inputs.split == "train"])
    weights = inputs.class_weights("balanced", torch.device("cpu"))
    assert weights is not None
    assert weights.numpy() == pytest.approx(count.sum() / (3 * count))
    assert float((weights.numpy() * count).sum()) == pytest.approx(count.sum())
    assert inputs.class_weights("none", torch.device("cpu")) is None
    other = start(stage, {f"{stage}.class_weights": "balanced"}).run()
    assert not np.array_equal(other.logits, list_matrix(artifacts[stage].table, "logits"))


def test_rows_must_agree(artifacts: dict[str, Artifact]) -> None:
    with pytest.raises(AssertionError, match="teacher has other rows than data"):
        Inputs(artifacts["data"].table, {"teacher": artifacts["teacher"].table.slice(1)})
