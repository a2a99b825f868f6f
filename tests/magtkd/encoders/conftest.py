from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
PICTURES = {"image_size": 16, "patch_size": 8, "num_frames": 4}
SOUND: dict[str, Any] = {
    "conv_dim": (8, 8),
    "conv_kernel": (16, 4),
    "conv_stride": (80, 4),
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
}
MORE: dict[str, dict[str, Any]] = {
    "Timesformer": PICTURES,
    "VideoMAE": PICTURES | {"tubelet_size": 2},
    "Data2VecAudio": SOUND | {"conv_pos_kernel_size": 3},
}


@pytest.fixture(scope="session")
def make_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Makes a tiny random model of a family, by the first part of its class, in a folder."""

    def make(family: str) -> Path:
        import torch
        import transformers

        folder = tmp_path_factory.mktemp(family)
        torch.manual_seed(0)
        more = MORE.get(family, SOUND | {"feat_extract_norm": "layer"})
        config = getattr(transformers, f"{family}Config")(**SIZES, **more)
        getattr(transformers, f"{family}Model")(config).save_pretrained(folder)
        return folder

    return make
