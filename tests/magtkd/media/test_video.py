from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from magtkd.media.container import UnreadableError
from magtkd.media.video import chosen_frames, read_frames

pytest.importorskip("av")
MakeClip = Callable[..., Path]


def shades(frames: npt.NDArray[np.uint8]) -> list[float]:
    return [float(frame.mean()) for frame in frames]


@given(num_frames=st.integers(1, 500), wanted=st.integers(1, 32))
def test_chosen_frames(num_frames: int, wanted: int) -> None:
    chosen = chosen_frames(num_frames, wanted)
    assert len(chosen) == wanted
    assert chosen[0] == 0
    steps = np.diff(chosen)
    if num_frames >= wanted:
        assert wanted == 1 or chosen[-1] == num_frames - 1
        assert len(set(chosen)) == wanted
        assert wanted == 1 or steps.max() - steps.min() <= 1
    else:
        assert np.array_equal(chosen[:num_frames], np.arange(num_frames))
        assert (chosen[num_frames:] == num_frames - 1).all()


@pytest.mark.parametrize("suffix", ["mp4", "avi", "mkv"])
def test_frames_are_evenly_spread(tmp_path: Path, make_clip: MakeClip, suffix: str) -> None:
    path = make_clip(tmp_path / f"c.{suffix}", seconds=2.0, fps=8, shade=20, step=10)
    frames = read_frames(path, None, None, num_frames=4, image_size=24)
    assert frames.shape == (4, 24, 24, 3)
    assert frames.dtype == np.uint8
    expected = [20 + 10 * number for number in (0, 5, 10, 15)]
    assert shades(frames) == pytest.approx(expected, abs=6)


def test_a_short_clip_repeats_its_last_frame(tmp_path: Path, make_clip: MakeClip) -> None:
    path = make_clip(tmp_path / "c.mp4", seconds=3 / 8, fps=8, shade=20, step=40)
    frames = read_frames(path, None, None, num_frames=5, image_size=16)
    assert shades(frames) == pytest.approx([20, 60, 100, 100, 100], abs=6)
    assert np.array_equal(frames[2], frames[4])


@pytest.mark.parametrize("suffix", ["mp4", "avi"])
def test_a_span_is_cut_by_time(tmp_path: Path, make_clip: MakeClip, suffix: str) -> None:
    path = make_clip(tmp_path / f"c.{suffix}", seconds=6.0, fps=4, shade=10, step=10)
    frames = read_frames(path, 3.0, 4.0, num_frames=4, image_size=16)
    assert shades(frames) == pytest.approx([130, 140, 150, 160], abs=6)


@pytest.mark.parametrize("size", [(64, 32), (32, 64), (33, 57), (32, 32)])
def test_the_centre_of_the_picture_is_kept(tmp_path: Path, size: tuple[int, int]) -> None:
    import av

    width, height = (side // 2 * 2 for side in size)
    picture = np.zeros((height, width, 3), np.uint8)
    short = min(width, height)
    top, left = (height - short) // 2, (width - short) // 2
    picture[top : top + short, left : left + short, 1] = 255
    path = tmp_path / "c.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("png", rate=4)
        stream.width, stream.height, stream.pix_fmt = width, height, "rgb24"
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        for packet in [*stream.encode(frame), *stream.encode()]:
            container.mux(packet)
    (found,) = read_frames(path, None, None, num_frames=1, image_size=16)
    assert found[2:-2, 2:-2, 1].min() > 240
    assert found[..., 0].max() < 15


def test_what_has_no_picture(tmp_path: Path, make_clip: MakeClip) -> None:
    path = tmp_path / "c.mp4"
    path.write_bytes(b"no clip" * 300)
    with pytest.raises(UnreadableError, match="invalid data"):
        read_frames(path, None, None, num_frames=2, image_size=16)
    sound = make_clip(tmp_path / "s.mp4", has_video=False)
    with pytest.raises(UnreadableError, match="it has no video"):
        read_frames(sound, None, None, num_frames=2, image_size=16)
    short = make_clip(tmp_path / "t.mp4")
    with pytest.raises(UnreadableError, match="no picture in its span"):
        read_frames(short, 7.0, 8.0, num_frames=2, image_size=16)


def test_a_clip_that_breaks_off_still_counts_or_is_named(
    tmp_path: Path, make_clip: MakeClip
) -> None:
    path = make_clip(tmp_path / "c.avi", seconds=4.0)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    try:
        frames = read_frames(path, None, None, num_frames=8, image_size=16)
    except UnreadableError:
        return
    assert frames.shape == (8, 16, 16, 3)
