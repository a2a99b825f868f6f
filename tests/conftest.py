from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, settings

from magtkd.config import Config, SyntheticConfig, with_values
from magtkd.data import make_synthetic, write_parquet

# How long an example takes to draw depends on the machine's load, not on the code.
# CI draws the same examples each time, so that it fails for a change and not by chance; people draw
# others in each run.
settings.register_profile(
    "any-load",
    suppress_health_check=[HealthCheck.too_slow],
    deadline=None,
    derandomize="MAGTKD_SAME_DRAWS" in os.environ,
)
settings.load_profile("any-load")

CORPUS = SyntheticConfig(
    num_dialogues=23,
    mean_length=4,
    num_emotions=3,
    num_speakers=5,
    text_dim=11,
    audio_dim=7,
    video_dim=5,
)
CONFIG = Config.model_validate(
    {
        "data": {"synthetic": CORPUS},
        "teacher": {"epochs": 2, "batch_size": 13, "hidden_dim": 6},
        "audio": {"epochs": 2, "batch_size": 13, "hidden_dim": 6},
        "video": {"epochs": 2, "batch_size": 13, "hidden_dim": 6},
        "fusion": {
            "epochs": 3,
            "batch_size": 5,
            "hidden_dim": 6,
            "num_heads": 3,
            "learning_rate": 0.01,
        },
    }
)


@pytest.fixture(scope="session")
def tiny_table() -> pa.Table:
    """A made-up corpus of 23 short conversations with all three modalities."""
    return make_synthetic(CORPUS)


@pytest.fixture(scope="session")
def tiny_config() -> Callable[..., Config]:
    """A configuration that trains that corpus in a moment; takes values by dotted name."""

    def make(values: dict[str, Any] | None = None) -> Config:
        return with_values(CONFIG, values or {})

    return make


@pytest.fixture
def tiny_parquet(tiny_table: pa.Table, tmp_path: Path) -> Callable[..., Path]:
    """Writes that corpus, without the columns that are named, to a Parquet file."""

    def write(*without: str) -> Path:
        path = tmp_path / f"table-without-{'-'.join(without) or 'nothing'}.parquet"
        write_parquet(tiny_table.drop_columns(list(without)), path)
        return path

    return write


@pytest.fixture
def data_folder() -> Path:
    """The folder of real conversations; skips where there is none."""
    folder = os.environ.get("MAGTKD_DATA")
    if not folder:
        pytest.skip("MAGTKD_DATA names no folder with the real data")
    return Path(folder)


# --- clips, and models in the hub's layout ----------------------------------------------------

MakeClip = Callable[..., Path]


@pytest.fixture(scope="session")
def make_clip() -> MakeClip:
    """Writes a clip: a tone that gets no louder, and pictures of one shade of grey that gets
    lighter by `step` each frame."""
    av = pytest.importorskip("av")

    def make(
        path: Path,
        *,
        seconds: float = 0.5,
        fps: int = 8,
        size: tuple[int, int] = (48, 32),
        tone: float = 440.0,
        rate: int = 44_100,
        shade: int = 40,
        step: int = 10,
        has_audio: bool = True,
        has_video: bool = True,
    ) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(path), "w") as container:
            if has_video:
                video = container.add_stream("mpeg4", rate=fps)
                video.width, video.height, video.pix_fmt = *size, "yuv420p"
                video.bit_rate = 1_000_000
            if has_audio:
                audio = container.add_stream("aac", rate=rate, layout="stereo")
            for number in range(round(seconds * fps) if has_video else 0):
                grey = np.full((size[1], size[0], 3), min(255, shade + step * number), np.uint8)
                frame = av.VideoFrame.from_ndarray(grey, format="rgb24")
                for packet in video.encode(frame):
                    container.mux(packet)
            if has_video:
                for packet in video.encode():
                    container.mux(packet)
            if has_audio:
                times = np.arange(round(seconds * rate)) / rate
                wave = (0.5 * np.sin(2 * np.pi * tone * times)).astype(np.float32)
                samples = av.AudioFrame.from_ndarray(
                    np.stack([wave, wave]), format="fltp", layout="stereo"
                )
                samples.sample_rate = rate
                for packet in [*audio.encode(samples), *audio.encode()]:
                    container.mux(packet)
        return path

    return make


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Random models in the hub's own layout: `roberta`, `audio` (data2vec-audio) and `video`
    (TimeSformer)."""
    import torch
    from transformers import (
        Data2VecAudioConfig,
        Data2VecAudioModel,
        RobertaConfig,
        RobertaModel,
        TimesformerConfig,
        TimesformerModel,
        Wav2Vec2FeatureExtractor,
    )

    from magtkd.encoders.tiny import tiny_tokenizer

    root = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    tokenizer = tiny_tokenizer(["we are glad", "we are sad", "who knows"], None)
    tokenizer.save_pretrained(root / "roberta")
    RobertaModel(
        RobertaConfig(
            **small,
            vocab_size=len(tokenizer),
            intermediate_size=32,
            max_position_embeddings=80,
            pad_token_id=tokenizer.pad_token_id,
        )
    ).save_pretrained(root / "roberta")
    Data2VecAudioModel(
        Data2VecAudioConfig(
            **small,
            intermediate_size=32,
            conv_dim=(8, 8),
            conv_kernel=(16, 4),
            conv_stride=(80, 4),
            num_conv_pos_embeddings=2,
            conv_pos_kernel_size=3,
            num_conv_pos_embedding_groups=2,
            mask_time_length=2,
        )
    ).save_pretrained(root / "audio")
    Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(root / "audio")
    TimesformerModel(
        TimesformerConfig(**small, intermediate_size=32, image_size=16, patch_size=8, num_frames=4)
    ).save_pretrained(root / "video")
    return {name: root / name for name in ("roberta", "audio", "video")}


@pytest.fixture(scope="session")
def clip_corpus(tmp_path_factory: pytest.TempPathFactory, make_clip: MakeClip) -> Path:
    """The table of 14 short conversations whose words, tones and shades tell their emotion; the
    clips lie beside it."""
    folder = tmp_path_factory.mktemp("clips")
    feelings = {"joy": ("we are glad", 900.0, 160), "sadness": ("we are sad", 300.0, 30)}
    rows: list[dict[str, Any]] = []
    for dialogue in range(14):
        split = "train" if dialogue < 8 else "dev" if dialogue < 11 else "test"
        for utterance in range(2 + dialogue % 2):
            label = ("joy", "sadness")[(dialogue + utterance) % 2]
            text, tone, shade = feelings[label]
            name = f"{split}/dia{dialogue}_utt{utterance}.mp4"
            seconds = 0.4 + 0.1 * (dialogue % 3)
            make_clip(folder / name, tone=tone, shade=shade, seconds=seconds)
            rows.append(
                {
                    "split": split,
                    "dialogue_id": f"{split}/{dialogue}",
                    "utterance_id": utterance,
                    "speaker": ("Ann", "Bob")[utterance % 2],
                    "text": text,
                    "label": label,
                    "video_path": name,
                }
            )
    write_parquet(pa.Table.from_pylist(rows), folder / "table.parquet")
    return folder / "table.parquet"


@pytest.fixture(scope="session")
def clip_config(clip_corpus: Path, tiny_models: dict[str, Path]) -> Callable[..., Config]:
    """A configuration that trains that corpus from its clips with those models."""
    stage = {"epochs": 1, "batch_size": 5, "hidden_dim": 8}
    tree = {
        "data": {"path": str(clip_corpus)},
        "teacher": stage | {"encoder": str(tiny_models["roberta"]), "max_length": 48},
        "audio": stage | {"encoder": str(tiny_models["audio"])},
        "video": stage | {"encoder": str(tiny_models["video"])},
        "fusion": stage | {"epochs": 2, "num_heads": 2, "batch_size": 3},
    }

    def make(values: dict[str, Any] | None = None) -> Config:
        return with_values(Config.model_validate(tree), values or {})

    return make
