from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from magtkd.encoders import VideoEncoder
from magtkd.errors import ConfigError

MakeModel = Callable[..., Path]
SHAPE = (4, 16, 16, 3)
CLIPS = list(np.random.default_rng(1).integers(0, 256, (3, *SHAPE), dtype=np.uint8))


def make(folder: Path, pooling: str = "first", shape: tuple[int, ...] = SHAPE) -> VideoEncoder:
    return VideoEncoder(str(folder), shape=shape, pooling=pooling, dropout=0.0).eval()


@pytest.mark.parametrize("pooling", ["first", "mean"])
def test_one_state_each(tiny_models: dict[str, Path], pooling: str) -> None:
    encoder = make(tiny_models["video"], pooling)
    with torch.no_grad():
        together = encoder(*encoder.collate(CLIPS))
        alone = torch.cat([encoder(*encoder.collate([clip])) for clip in CLIPS])
    assert together.shape == (3, 16)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_pixels_are_scaled_as_the_model_says(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    import json
    import shutil

    folder = Path(shutil.copytree(tiny_models["video"], tmp_path / "video"))
    settings = {"image_mean": [0.5, 0.25, 0.75], "image_std": [0.5, 0.5, 0.25]}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    encoder = make(folder)
    seen: list[torch.Tensor] = []
    embed = encoder.model.embeddings
    embed.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    encoder(*encoder.collate([np.full(SHAPE, 255, np.uint8)]))
    assert seen[0].shape == (1, 4, 3, 16, 16)
    assert seen[0][0, 0, :, 0, 0].tolist() == [1.0, 1.5, 1.0]


def test_clips_of_another_shape(tiny_models: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match=r"video_media\.num_frames: 8, but .* takes 4; set it to"):
        make(tiny_models["video"], shape=(8, 16, 16, 3))
    with pytest.raises(ConfigError, match=r"video_media\.image_size: 24, but .* takes 16; set it"):
        make(tiny_models["video"], shape=(4, 24, 24, 3))
    with pytest.raises(ConfigError, match=r"video\.encoder: .* is a RobertaModel, not a video enc"):
        make(tiny_models["roberta"])


def test_videomae_has_no_class_token(make_model: MakeModel) -> None:
    folder = make_model("VideoMAE")
    encoder = make(folder, "mean")
    assert encoder(*encoder.collate(CLIPS)).shape == (3, 16)
    message = r"^video\.pooling: 'first', but '.*' is a VideoMAEModel, which has no .* to 'mean'$"
    with pytest.raises(ConfigError, match=message):
        make(folder, "first")
