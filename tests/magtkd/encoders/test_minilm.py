"""The encoder that comes as a package."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

from magtkd import model_files as models
from magtkd.config import Config
from magtkd.encoders import TextEncoder
from magtkd.errors import ConfigError

is_there = importlib.util.find_spec(models.MINILM) is not None


def make() -> TextEncoder:
    return TextEncoder(
        "minilm",
        texts=["we are glad"],
        known_speakers=("ann",),
        hidden_dim=6,
        dropout=0.1,
        max_length=32,
    )


def test_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "MINILM", "no_such_package")
    with pytest.raises(ConfigError, match=r"cannot load 'minilm' .*pip install 'magtkd\[offline\]"):
        make()


@pytest.mark.skipif(not is_there, reason="magtkd[offline] is not installed")
@pytest.mark.slow
def test_minilm_encodes_without_a_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    encoder = make()
    assert encoder.model.config.hidden_size == 384
    batch = encoder.encode_inputs(
        splits=["train"],
        dialogues=["d"],
        speakers=["Ann"],
        texts=["we are glad"],
        context=2,
    ).batch([0])
    assert encoder(batch.input_ids, batch.attention_mask).shape == (1, 6)


@pytest.mark.skipif(not is_there, reason="magtkd[offline] is not installed")
@pytest.mark.slow
def test_minilm_teaches(
    tmp_path: Path,
    tiny_config: Callable[..., Config],
    tiny_parquet: Callable[..., Path],
) -> None:
    from magtkd.pipeline import run_chain
    from magtkd.store import Store

    path = tiny_parquet("text_features", "audio_features", "video_features")
    values = {
        "data": {"path": str(path)},
        "teacher.encoder": "minilm",
        "teacher.epochs": 1,
        "teacher.max_length": 48,
        "teacher.accumulation": 2,
        "teacher.prompt_length": 3,
        "teacher.train": "prompt",
    }
    artifacts = run_chain(tiny_config(values), Store(tmp_path))
    assert artifacts["teacher"].table.schema.field("features").type.list_size == 6
