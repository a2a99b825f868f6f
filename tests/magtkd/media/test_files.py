from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from magtkd.media.files import clip_sources, find_absent, media_fingerprints, media_paths


def table(**columns: Any) -> pa.Table:
    size = len(next(iter(columns.values())))
    identity = {"dialogue_id": ["d"] * size, "utterance_id": pa.array(range(size), pa.int32())}
    return pa.table(identity | columns)


def test_audio_is_taken_from_the_video_where_there_is_no_other() -> None:
    both = table(audio_path=["a.wav", None, None], video_path=["a.mp4", "b.mp4", None])
    assert media_paths(both, "audio") == ["a.wav", "b.mp4", None]
    assert media_paths(both, "video") == ["a.mp4", "b.mp4", None]
    assert media_paths(table(audio_path=["a.wav"]), "video") == [None]


@pytest.mark.parametrize(
    ("cut", "cuts"),
    [("shared", [True, True, False]), ("always", [True] * 3), ("never", [False] * 3)],
)
def test_what_is_cut(cut: str, cuts: list[bool]) -> None:
    shared = table(
        video_path=["a.mp4", "a.mp4", "b.mp4"], start=[0.5, 1.0, 7.0], end=[1.0, 2.5, 9.0]
    )
    sources = clip_sources(shared, "video", cut)
    times = [(0.5, 1.0), (1.0, 2.5), (7.0, 9.0)]
    expected = [one if is_cut else (None, None) for one, is_cut in zip(times, cuts, strict=True)]
    assert [(source.start, source.end) for source in sources] == expected
    assert sources[1].place == "dialogue d, utterance 1"


def test_fingerprints_follow_the_files(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"1")
    clips = table(video_path=["a.mp4", "gone.mp4"])
    before, found = media_fingerprints(clips, tmp_path), list[str]()
    assert set(before) == {"audio", "video"}
    assert media_fingerprints(clips, tmp_path) == before
    (tmp_path / "a.mp4").write_bytes(b"22")
    assert media_fingerprints(clips, tmp_path) != before
    for content in (b"x" * 10_000, b"y" + b"x" * 9_999, b"x" * 9_999 + b"y"):  # of one size
        (tmp_path / "a.mp4").write_bytes(content)
        found.append(media_fingerprints(clips, tmp_path)["video"])
    assert len(set(found)) == 3
    assert media_fingerprints(table(audio_path=["a.wav"]), tmp_path).keys() == {"audio"}
    assert media_fingerprints(table(video_path=pa.array([None], pa.string())), tmp_path) == {}


def test_a_folder_with_none_of_the_clips_is_told(tmp_path: Path) -> None:
    clips = table(video_path=["a.mp4", "b.mp4"])
    assert find_absent(clips, tmp_path) == {"audio": "a.mp4", "video": "a.mp4"}
    (tmp_path / "a.mp4").write_bytes(b"1")
    assert find_absent(clips, tmp_path) == {}
    assert find_absent(table(speaker=["s"]), tmp_path) == {}
