from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pytest
import soundfile

from magtkd.data.columns import features_column

LENGTHS = {"train": (5, 1, 3), "dev": (2,), "test": (3, 2)}


def _make_table(**replaced: Any) -> pa.Table:
    """Six small conversations with text features; keywords replace columns, None leaves one out."""
    rows = [
        (split, f"{split}{dialogue}", utterance)
        for split, lengths in LENGTHS.items()
        for dialogue, length in enumerate(lengths)
        for utterance in range(length)
    ]
    split, dialogue, utterance = (list(column) for column in zip(*rows, strict=True))
    number = np.arange(len(rows))
    columns: dict[str, Any] = {
        "split": split,
        "dialogue_id": dialogue,
        "utterance_id": pa.array(utterance, pa.int32()),
        "speaker": [f"speaker {index % 2}" for index in number],
        "text": [f"utterance number {index}" for index in number],
        "label": [("joy", "anger")[index % 2] for index in number],
        "text_features": features_column(np.sin(number[:, None] * np.arange(1, 8))),
    }
    columns |= replaced
    return pa.table({name: values for name, values in columns.items() if values is not None})


@pytest.fixture
def make_table() -> Callable[..., pa.Table]:
    return _make_table


def _write_mp4(path: Path, seconds: int) -> None:
    """A clip of 10 frames a second, with sound."""
    with av.open(path, "w") as clip:
        video = clip.add_stream("mpeg4", rate=10, width=32, height=16, pix_fmt="yuv420p")
        audio = clip.add_stream("aac", rate=16_000, layout="mono")
        for number in range(10 * seconds):
            pixels = np.full((16, 32, 3), 20 * number % 256, np.uint8)
            clip.mux(video.encode(av.VideoFrame.from_ndarray(pixels)))
        wave = np.sin(np.arange(16_000 * seconds) / 9)[None].astype(np.float32)
        sound = av.AudioFrame.from_ndarray(wave, "fltp", "mono")
        sound.sample_rate = 16_000
        clip.mux(audio.encode(sound))
        clip.mux(audio.encode())
        clip.mux(video.encode())


@pytest.fixture(scope="session")
def _media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    _write_mp4(folder / "clip.mp4", 1)
    soundfile.write(folder / "clip.wav", np.sin(np.arange(4_000) / 9), 16_000)
    return folder


@pytest.fixture
def put_clip(_media: Path) -> Callable[[Path], None]:
    """Puts a clip to a path, an mp4 or a wav by its name, and makes its folder."""

    def put(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = ".wav" if path.suffix == ".wav" else ".mp4"
        shutil.copyfile(_media / f"clip{kind}", path)

    return put
