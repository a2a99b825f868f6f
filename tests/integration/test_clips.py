"""A sweep that begins at mp4 files: clips are decoded once, whatever the trials search."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from magtkd.config import Config
from magtkd.store import Store
from tune.config import SweepConfig, check_sweep
from tune.results import best

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.usefixtures("ray_running"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

SPACE: dict[str, Any] = {
    "teacher.prompt_length": {"choice": [0, 3]},
    "audio.distill.temperature": {
        "float": [1.0, 4.0],
        "log": True,
        "tie": ["video.distill.temperature"],
    },
    "fusion.audio_weight": {"float": [0.01, 1.0], "log": True},
    "fusion.video_weight": {"float": [0.01, 1.0], "log": True},
    "fusion.depth": {"int": [1, 2]},
}


def test_a_sweep_on_clips_ends_with_a_best_configuration(
    tmp_path: Path,
    clip_config: Callable[..., Config],
    run: Callable[..., Any],
    outcomes: Callable[..., Any],
) -> None:
    tree = clip_config().model_dump() | {
        "name": "clips",
        "space": SPACE,
        "search": {"sampler": "random", "num_trials": 4, "max_concurrent": 2},
    }
    sweep = SweepConfig.model_validate(tree)
    check_sweep(sweep)
    state = run(sweep, tmp_path)
    assert state.count() == {"completed": 4}
    found = outcomes(state)
    for stage in ("audio_media", "video_media"):
        assert found[stage] == {"trained": 1, "reused": 3}
    assert found["fusion"]["trained"] == 4
    (chosen,) = best(state)
    assert set(chosen.values) == {*SPACE, "video.distill.temperature"}
    store = Store(tmp_path)
    for stage, key in chosen.stages.items():
        assert store.read_metrics(stage, key)["seconds"] > 0
    trained = [record for trial in state.trials.values() for record in trial.stages.values()]
    measured = [record for record in trained if record.samples_per_second is not None]
    assert {record.outcome for record in measured} == {"trained"}
    assert len({record.key for record in measured}) > 6
    # Gigabytes in a real corpus: stored once, and never sent between processes.
    key = chosen.stages["video_media"]
    assert Path(store.read("video_media", key).media).stat().st_size == 35 * 4 * 16 * 16 * 3
