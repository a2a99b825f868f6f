"""From a release's own files to the fusion: conversion, decoding, three students and MAGT."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile

from magtkd.config import Config
from magtkd.data.formats.convert import convert
from magtkd.pipeline import run_chain
from magtkd.store import Artifact, Store

MakeConfig = Callable[..., Config]
pytestmark = pytest.mark.slow
MELD = {
    "train": ("train_splits", 4),
    "dev": ("dev_splits_complete", 2),
    "test": ("output_repeated_splits_test", 2),
}
HEADER = "Utterance,Speaker,Emotion,Dialogue_ID,Utterance_ID,StartTime,EndTime"


def write_clip(path: Path, seconds: int, seed: int) -> None:
    """An mp4 by its content, whatever its name, of noise to see and to hear."""
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    with av.open(str(path), "w", format="mp4") as clip:
        video = clip.add_stream("mpeg4", rate=10, width=32, height=16, pix_fmt="yuv420p")
        audio = clip.add_stream("aac", rate=16_000, layout="mono")
        for pixels in generator.integers(0, 255, (10 * seconds, 16, 32, 3), dtype=np.uint8):
            clip.mux(video.encode(av.VideoFrame.from_ndarray(pixels)))
        wave = 0.1 * generator.standard_normal((1, 16_000 * seconds)).astype(np.float32)
        sound = av.AudioFrame.from_ndarray(wave, "fltp", "mono")
        sound.sample_rate = 16_000
        clip.mux(audio.encode(sound))
        clip.mux(audio.encode())
        clip.mux(video.encode())


def train(source: Path, out: Path, make: MakeConfig, **values: Any) -> dict[str, Artifact]:
    convert(source, out)
    config = make({"data.path": str(out), "data.media": str(source), **values})
    return run_chain(config, Store(out.parent / "store"))


def test_meld(tmp_path: Path, clip_config: MakeConfig) -> None:
    source = tmp_path / "MELD.Raw"
    for split, (folder, num_dialogues) in MELD.items():
        rows = [HEADER]
        for dialogue, utterance in itertools.product(range(num_dialogues), range(3)):
            label = ("joy", "anger", "fear")[(dialogue + utterance) % 3]
            rows.append(f'No,Ross,{label},{dialogue},{utterance},"0:10:01,500","0:10:02,000"')
            clip = f"dia{dialogue}_utt{utterance}.mp4"
            write_clip(source / folder / clip, 1, 3 * dialogue + utterance)
        (source / f"{split}_sent_emo.csv").write_text("\n".join(rows))
    artifacts = train(source, tmp_path / "meld.parquet", clip_config)
    assert artifacts["audio_media"].metrics["missing"] == []
    assert artifacts["video_media"].metrics["missing"] == []
    assert "dev" in artifacts["fusion"].metrics


def test_iemocap(tmp_path: Path, clip_config: MakeConfig) -> None:
    source = tmp_path / "IEMOCAP_full_release"
    for session, kind in itertools.product((1, 2, 3, 5), ("F_impro01", "M_impro02")):
        folder, dialogue = source / f"Session{session}", f"Ses0{session}{kind}"
        lines: dict[str, list[str]] = {"EmoEvaluation": [], "transcriptions": []}
        for index, (label, sex) in enumerate(zip(("hap", "sad", "ang"), "FMF", strict=True)):
            name = f"{dialogue}_{sex}00{index}"
            time = f"{index}.0000 - {index + 1}.0000"
            lines["EmoEvaluation"].append(f"[{time}]\t{name}\t{label}\t[2.5, 2.5, 2.5]")
            lines["transcriptions"].append(f"{name} [00{index}.0000-00{index + 1}.0000]: Well.")
            wav = folder / "sentences/wav" / dialogue / f"{name}.wav"
            wav.parent.mkdir(parents=True, exist_ok=True)
            wave = 0.1 * np.random.default_rng(index).standard_normal(16_000)
            soundfile.write(wav, wave, 16_000)
        for part, texts in lines.items():
            path = folder / "dialog" / part / f"{dialogue}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(texts))
        write_clip(folder / "dialog/avi/DivX" / f"{dialogue}.avi", 3, session)
    out = tmp_path / "iemocap.parquet"
    artifacts = train(source, out, clip_config, **{"data.dev_fraction": 0.2})
    assert artifacts["audio_media"].metrics["missing"] == []
    assert artifacts["video_media"].metrics["missing"] == []
    assert "dev" in artifacts["fusion"].metrics
