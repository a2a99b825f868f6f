from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from magtkd.encoders import AudioEncoder, TextEncoder, VideoEncoder
from magtkd.errors import ConfigError

MakeModel = Callable[..., Path]
FRAMES = list(np.random.default_rng(1).integers(0, 256, (2, 4, 16, 16, 3), dtype=np.uint8))
WAVES = list(np.random.default_rng(1).integers(-999, 999, (2, 4000), dtype=np.int16))
KINDS = ("text", "audio", "video")


def make(kind: str, models: dict[str, Path], **options: Any) -> tuple[Any, tuple[Tensor, ...]]:
    """An encoder of a kind, and something to encode."""
    torch.manual_seed(0)
    if kind == "audio":
        audio = AudioEncoder(str(models["audio"]), pooling="mean", dropout=0.0, **options)
        audio.model.config.apply_spec_augment = False
        audio.model.config.layerdrop = 0.0
        return audio, audio.collate(WAVES)
    if kind == "video":
        video = VideoEncoder(
            str(models["video"]), shape=(4, 16, 16, 3), pooling="mean", dropout=0.0, **options
        )
        return video, video.collate(FRAMES)
    text = TextEncoder(
        str(models["roberta"]),
        texts=["we are glad"],
        known_speakers=("ann",),
        hidden_dim=5,
        dropout=0.0,
        prompt_length=3,
        max_length=40,
        **options,
    )
    batch = text.encode_inputs(
        splits=["train"] * 2,
        dialogues=["d"] * 2,
        speakers=["Ann", "Bob"],
        texts=["we are glad", "who knows"],
        context=2,
    ).batch([0, 1])
    return text, (batch.input_ids, batch.attention_mask)


def gradients(encoder: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
    encoder.train()
    result = encoder(*inputs)
    result.square().sum().backward()
    found = {n: p.grad for n, p in encoder.named_parameters() if p.grad is not None}
    return result.detach(), found


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_checkpointing_changes_no_result(tiny_models: dict[str, Path], kind: str) -> None:
    plain, plain_gradients = gradients(*make(kind, tiny_models))
    checked, checked_gradients = gradients(*make(kind, tiny_models, gradient_checkpointing=True))
    assert torch.equal(plain, checked)
    assert plain_gradients.keys() == checked_gradients.keys()
    for name, gradient in plain_gradients.items():
        torch.testing.assert_close(gradient, checked_gradients[name])


@pytest.mark.parametrize("kind", KINDS)
def test_lora_starts_where_the_encoder_is_and_trains_little(
    tiny_models: dict[str, Path], kind: str
) -> None:
    pytest.importorskip("peft")
    plain, inputs = make(kind, tiny_models)
    small, _ = make(kind, tiny_models, lora=(2, 4.0))
    if kind == "text":  # its own layers on top are random
        small.linear.load_state_dict(plain.linear.state_dict())
        small.prompt.data.copy_(plain.prompt.data)
    with torch.no_grad():
        torch.testing.assert_close(plain.eval()(*inputs), small.eval()(*inputs))
    _, found = gradients(small, inputs)
    trained = {name for name in found if name.startswith("model.")}
    assert trained
    assert all(".lora_" in name for name in trained)
    for name, parameter in small.model.named_parameters():
        assert parameter.requires_grad == (".lora_" in name)


@pytest.mark.parametrize(
    "family", ["roberta", "Data2VecAudio", "Wav2Vec2", "Hubert", "Timesformer", "VideoMAE"]
)
def test_every_update_of_lora_gets_a_gradient(
    tiny_models: dict[str, Path], make_model: MakeModel, family: str
) -> None:
    pytest.importorskip("peft")
    kind = {"roberta": "text", "Timesformer": "video", "VideoMAE": "video"}.get(family, "audio")
    folder = tiny_models["roberta"] if family == "roberta" else make_model(family)
    key = "roberta" if kind == "text" else kind
    encoder, inputs = make(kind, {key: folder}, lora=(2, 4.0))
    _, found = gradients(encoder, inputs)
    updates = [name for name, _ in encoder.named_parameters() if ".lora_B." in name]
    assert len(updates) >= 2
    for name in updates:
        assert found[name].abs().max() > 0, name


@pytest.mark.parametrize("family", ["Data2VecAudio", "Wav2Vec2", "Hubert"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_lora_keeps_no_activations_of_the_convolutions(
    make_model: MakeModel, family: str, checkpointing: bool
) -> None:
    pytest.importorskip("peft")
    encoder, inputs = make(
        "audio",
        {"audio": make_model(family)},
        lora=(2, 4.0),
        gradient_checkpointing=checkpointing,
    )
    seen: list[Tensor] = []
    encoder.model.feature_extractor.register_forward_hook(
        lambda module, given, features: seen.append(features)
    )
    _, found = gradients(encoder, inputs)
    assert found
    assert not seen[0].requires_grad


def test_lora_is_refused_where_it_would_train_nothing(make_model: MakeModel) -> None:
    pytest.importorskip("peft")
    message = r"^audio\.lora: WavLMModel .*; leave lora out, or take data2vec-audio, wav2vec2 or Hu"
    with pytest.raises(ConfigError, match=message):
        make("audio", {"audio": make_model("WavLM")}, lora=(2, 4.0))
    make("audio", {"audio": make_model("WavLM")})


def test_lora_needs_peft(tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match=r"audio\.lora: needs peft.*pip install 'magtkd\[lora\]'"):
        make("audio", tiny_models, lora=(2, 4.0))
