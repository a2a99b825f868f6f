"""Frames from video files: so many, evenly spread, of one size.

Shapes: F frames, S height and width in pixels.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from magtkd.media.container import UnreadableError, open_container

__all__ = ["chosen_frames", "read_frames"]


def chosen_frames(num_frames: int, wanted: int) -> npt.NDArray[np.int64]:
    """[wanted] numbers of the frames to take of so many: evenly spread, the first and the last
    among them; fewer than wanted are all taken, and the last one repeated."""
    if num_frames < wanted:
        return np.minimum(np.arange(wanted), num_frames - 1)
    return np.linspace(0, num_frames - 1, wanted).round().astype(np.int64)


def read_frames(
    path: Path, start: float | None, end: float | None, *, num_frames: int, image_size: int
) -> npt.NDArray[np.uint8]:
    """The frames of a file, or of a part of it, as [F, S, S, 3] uint8 (RGB): the shorter side
    scaled to S, then the centre.

    Args:
        path: a video file.
        start: first second, None for the file's.
        end: last second, None for the file's.
        num_frames: F.
        image_size: S.

    Raises:
        UnreadableError: there is no such file, it has no picture, or it is damaged.
    """
    span = start or 0.0, math.inf if end is None else end
    with open_container(path, "video") as container:
        total = _count(container, span)
    if not total:
        raise UnreadableError("it has no picture in its span")
    chosen = chosen_frames(total, num_frames)
    found: dict[int, npt.NDArray[np.uint8]] = {}
    with open_container(path, "video") as container:
        for number, frame in enumerate(_frames(container, span)):
            if number in chosen:
                found[number] = _picture(frame, image_size)
            if number >= chosen[-1]:
                break
    if not found:
        raise UnreadableError("none of its pictures can be decoded")
    # A damaged end gives fewer frames than were counted: the last decoded one is repeated.
    last = max(found)
    return np.stack([found[min(int(number), last)] for number in chosen])


def _is_in(time: float | None, span: tuple[float, float]) -> bool:
    return time is None or span[0] <= time < span[1]


def _seek(container: Any, span: tuple[float, float]) -> Any:
    import av

    stream = container.streams.video[0]
    if span[0] > 1:  # some formats keep no time stamps near the start
        container.seek(int((span[0] - 1) * av.time_base))
    return stream


def _count(container: Any, span: tuple[float, float]) -> int:
    """The frames of a span, by their packets: nothing is decoded."""
    stream = _seek(container, span)
    count = 0
    for packet in container.demux(stream):
        if not packet.size:
            continue
        stamp = packet.pts if packet.pts is not None else packet.dts
        time = None if stamp is None else float(stamp * stream.time_base)
        if packet.dts is not None and float(packet.dts * stream.time_base) >= span[1]:
            break
        count += _is_in(time, span)
    return count


def _frames(container: Any, span: tuple[float, float]) -> Any:
    for frame in container.decode(_seek(container, span)):
        if frame.time is not None and frame.time >= span[1]:
            return
        if _is_in(frame.time, span):
            yield frame


def _picture(frame: Any, size: int) -> npt.NDArray[np.uint8]:
    scale = size / min(frame.width, frame.height)
    width, height = (max(size, round(side * scale)) for side in (frame.width, frame.height))
    picture = frame.to_ndarray(format="rgb24", width=width, height=height, interpolation="BILINEAR")
    top, left = (height - size) // 2, (width - size) // 2
    return picture[top : top + size, left : left + size]  # type: ignore[no-any-return]
