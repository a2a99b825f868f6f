from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from magtkd.encoders import AudioEncoder
from magtkd.encoders.audio import _normalised, _num_samples, _num_states
from magtkd.errors import ConfigError

MakeModel = Callable[..., Path]
GENERATOR = np.random.default_rng(3)
CLIPS = [GENERATOR.integers(-9000, 9000, size, dtype=np.int16) for size in (4000, 7919, 1601)]


def make(models: dict[str, Path], **options: Any) -> AudioEncoder:
    settings = {"pooling": "first", "dropout": 0.0} | options
    return AudioEncoder(str(models["audio"]), **settings).eval()


def test_loudness_changes_nothing(tiny_models: dict[str, Path]) -> None:
    encoder = make(tiny_models)
    with torch.no_grad():
        one = encoder(*encoder.collate(CLIPS))
        louder = encoder(*encoder.collate([3 * clip for clip in CLIPS]))
    torch.testing.assert_close(one, louder, atol=1e-4, rtol=1e-3)


def test_clips_are_normalised_as_the_feature_extractor_does() -> None:
    from transformers import Wav2Vec2FeatureExtractor

    waves = [clip.astype(np.float32) / 32767 for clip in CLIPS]
    extractor = Wav2Vec2FeatureExtractor(return_attention_mask=True)
    expected = extractor(waves, sampling_rate=16_000, padding=True, return_tensors="pt")
    padded = torch.zeros(3, 7919)
    for line, wave in enumerate(waves):
        padded[line, : len(wave)] = torch.from_numpy(wave)
    ours = _normalised(padded, expected["attention_mask"].bool())
    torch.testing.assert_close(ours, expected["input_values"], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("size", [400, 401, 719, 720, 16_000, 400_000])
def test_hidden_states_are_counted_as_the_convolutions_make_them(size: int) -> None:
    from transformers import Wav2Vec2Config

    config = Wav2Vec2Config()
    count = int(_num_states(config, torch.tensor([size])))
    shortest = _num_samples(config, count)
    assert shortest <= size
    assert int(_num_states(config, torch.tensor([shortest]))) == count
    assert int(_num_states(config, torch.tensor([shortest - 1]))) == count - 1


@pytest.mark.parametrize("mode", [True, False])
def test_the_shortest_clips(tiny_models: dict[str, Path], mode: bool) -> None:
    encoder = make(tiny_models, pooling="mean").train(mode)
    clips = [np.ones(size, np.int16) for size in (1, 7)]
    assert encoder(*encoder.collate(clips)).isfinite().all()


def test_what_is_no_speech_encoder(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"audio\.encoder: .* is a RobertaModel, not a speech enc"
    ):
        AudioEncoder(str(tiny_models["roberta"]), pooling="first", dropout=0.0)
    with pytest.raises(ConfigError, match=r"audio\.encoder: cannot load .*no such folder.*HuBERT"):
        AudioEncoder(str(tmp_path / "gone"), pooling="first", dropout=0.0)
    other = Path(shutil.copytree(tiny_models["audio"], tmp_path / "other"))
    settings = json.loads((other / "preprocessor_config.json").read_text())
    (other / "preprocessor_config.json").write_text(json.dumps(settings | {"sampling_rate": 8000}))
    with pytest.raises(ConfigError, match="expects 8000 Hz, the clips have 16000 Hz"):
        AudioEncoder(str(other), pooling="first", dropout=0.0)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["Wav2Vec2", "Hubert", "WavLM"])
@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")
@pytest.mark.parametrize("pooling", ["first", "mean"])
def test_padding_changes_nothing(make_model: MakeModel, family: str, pooling: str) -> None:
    encoder = make({"audio": make_model(family)}, pooling=pooling)
    with torch.no_grad():
        together = encoder(*encoder.collate(CLIPS))
        alone = torch.cat([encoder(*encoder.collate([clip])) for clip in CLIPS])
    assert together.shape == (3, 16)
    torch.testing.assert_close(together, alone, atol=5e-5, rtol=1e-3)
