"""The whole chain from mp4 files to the fusion, with tiny random models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from magtkd.config import Config
from magtkd.pipeline import STAGES, run_chain
from magtkd.store import Store

MakeConfig = Callable[..., Config]
pytestmark = pytest.mark.slow


def test_from_clips_to_the_fusion(tmp_path: Path, clip_config: MakeConfig) -> None:
    store, config = Store(tmp_path), clip_config()
    artifacts = run_chain(config, store)
    assert tuple(artifacts) == STAGES
    for stage in STAGES:
        metrics = artifacts[stage].metrics
        assert metrics["samples_per_second"] > 0
        assert metrics["peak_memory"] > 0
    for stage in ("teacher", "audio", "video", "fusion"):
        metrics = artifacts[stage].metrics
        assert 0 <= metrics["dev"]["weighted_f1"] <= 1
    assert store.read("audio_media", artifacts["audio_media"].key) == artifacts["audio_media"]


def test_clips_are_decoded_once(tmp_path: Path, clip_config: MakeConfig) -> None:
    store = Store(tmp_path)
    run_chain(clip_config(), store)
    outcomes: dict[str, str] = {}
    other = clip_config({"audio.distill.temperature": 4.0, "seed": 3})
    run_chain(other, store, on_stage=lambda stage, one: outcomes.update({stage: one.outcome}))
    reused = {stage for stage, outcome in outcomes.items() if outcome == "reused"}
    assert reused == {"audio_media", "video_media"}
