from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load as load_tensors

from magtkd.config import Config
from magtkd.errors import ConfigError
from magtkd.pipeline import CoreTrainer, run_chain
from magtkd.store import Artifact, Store
from magtkd.training import Session

pytest.importorskip("av")
MakeConfig = Callable[..., Config]
Start = Callable[..., Session[Any, Any]]
STUDENTS = ("audio", "video")
VARIANTS: dict[str, dict[str, Any]] = {
    "full": {},
    "head": {"train": "head"},
    "mean": {"pooling": "mean", "distill": None},
    "checkpointing": {"gradient_checkpointing": True, "accumulation": 2},
    "lora": {"lora": {"rank": 2}},
}


@pytest.fixture(scope="module")
def artifacts(
    tmp_path_factory: pytest.TempPathFactory, clip_config: MakeConfig
) -> dict[str, Artifact]:
    return run_chain(clip_config(), Store(tmp_path_factory.mktemp("store")))


@pytest.fixture
def start(artifacts: dict[str, Artifact], clip_config: MakeConfig) -> Start:
    def make(stage: str, values: dict[str, Any]) -> Session[Any, Any]:
        config = clip_config({f"{stage}.{name}": value for name, value in values.items()})
        upstream = {name: artifacts[name] for name in ("data", "teacher", f"{stage}_media")}
        return CoreTrainer("cpu").open_session(stage, config, upstream)

    return make


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("stage", STUDENTS)
def test_checkpoint_and_restore_midway(start: Start, stage: str, variant: str) -> None:
    values = VARIANTS[variant] | {"epochs": 2}
    whole = start(stage, values).run()
    session = start(stage, values)
    while not session.is_done:
        checkpoint = session.checkpoint()
        session = start(stage, values)
        torch.rand(7), np.random.rand(7)  # what happens in between must not matter
        session.restore(checkpoint)
        session.advance()
    again = session.result()
    assert again.metrics["reports"] == whole.metrics["reports"]
    assert np.array_equal(again.features, whole.features)
    assert again.weights == whole.weights


@pytest.mark.parametrize("stage", STUDENTS)
def test_what_is_trained(start: Start, stage: str) -> None:
    def moved(values: dict[str, Any]) -> set[str]:
        session = start(stage, values)
        before = load_tensors(session.checkpoint())
        session.advance()
        after = load_tensors(session.checkpoint())
        names = [name for name in before if name.startswith("model/")]
        return {name for name in names if not torch.equal(before[name], after[name])}

    assert any(name.startswith("model/encoder.") for name in moved({}))
    head = moved({"train": "head"})
    assert head
    assert not any(name.startswith("model/encoder.") for name in head)
    lora = moved({"lora": {"rank": 2}, "epochs": 3})
    assert all(".lora_" in name for name in lora if name.startswith("model/encoder."))
    assert any(".lora_" in name for name in lora)


def test_features_of_a_head_do_not_depend_on_the_batch(start: Start) -> None:
    # Not so of data2vec-audio, whose convolutions over positions see the padding.
    one, other = (start("video", {"train": "head", "batch_size": size}) for size in (2, 7))
    torch.testing.assert_close(one.task.features, other.task.features, atol=1e-5, rtol=1e-4)


def test_options_that_have_nothing_to_work_on(clip_config: MakeConfig) -> None:
    for name, value in (("lora", {}), ("gradient_checkpointing", True)):
        with pytest.raises(ConfigError, match=f"{name} is set, but encoder 'features' has nothing"):
            clip_config({"audio.encoder": "features", f"audio.{name}": value})
    with pytest.raises(ConfigError, match="train is 'head', but encoder 'features' is nothing els"):
        clip_config({"video.encoder": "features", "video.train": "head"})
    with pytest.raises(ConfigError, match="train is 'head', which leaves the encoder alone"):
        clip_config({"video.train": "head", "video.lora": {}})
    with pytest.raises(ConfigError, match="prompt_length is 3, but template 'none' has no prompt"):
        clip_config({"teacher.template": "none", "teacher.prompt_length": 3})
    for name, value in (("lora", {}), ("gradient_checkpointing", True)):
        with pytest.raises(ConfigError, match="teacher: train is 'prompt', which leaves the enc"):
            clip_config({"teacher.train": "prompt", f"teacher.{name}": value})
