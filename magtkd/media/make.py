"""The media stages: every utterance's clip is decoded once for all trials."""

from __future__ import annotations

import functools
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from magtkd.config import AudioMediaConfig, VideoMediaConfig
from magtkd.data.paths import inside
from magtkd.errors import DataError, StorageLostError, and_more
from magtkd.media.audio import read_waveform
from magtkd.media.clips import ClipWriter
from magtkd.media.container import UnreadableError, need_media
from magtkd.media.files import ClipSource, clip_sources
from magtkd.media.video import read_frames
from magtkd.store import Artifact

__all__ = ["ClipFormat", "frame_format", "make_media", "waveform_format"]

RATE = 16_000
PUBLISHED_RATE = 22_050
BLOCK = 64
"""Clips that are decoded before they are written."""
MOST_REFUSED, MOST_REPLACED = 100, 10
"""Clips that a message names: more where they must be repaired than where they were replaced."""

Clip = npt.NDArray[Any]
Read = Callable[[Path, float | None, float | None], Clip]


@dataclass(frozen=True)
class ClipFormat:
    """What clips of a modality are decoded to.

    Args:
        modality: `audio` or `video`.
        kind: as `ClipWriter` names it.
        read: a file, and start and end in seconds or None, to a clip.
        blank: the clip in place of one that cannot be read, where `on_missing` asks for it.
        blank_name: what `on_missing` calls that.
        shape: the shape of every clip; empty where lengths differ.
    """

    modality: str
    kind: str
    read: Read
    blank: Clip
    blank_name: str
    shape: tuple[int, ...] = ()


def waveform_format(section: AudioMediaConfig) -> ClipFormat:
    """Waveforms, as the section configures them."""
    rate = PUBLISHED_RATE if section.published_sample_rate else RATE
    read = functools.partial(read_waveform, rate=rate, max_samples=section.max_samples)
    blank = np.zeros(min(RATE, section.max_samples), np.int16)
    return ClipFormat("audio", "waveform", read, blank, "silence")


def frame_format(num_frames: int, image_size: int) -> ClipFormat:
    """So many frames of so many pixels in height and width."""
    shape = (num_frames, image_size, image_size, 3)
    read = functools.partial(read_frames, num_frames=num_frames, image_size=image_size)
    return ClipFormat("video", "frames", read, np.zeros(shape, np.uint8), "black", shape)


def make_media(
    stage: str,
    key: str,
    section: AudioMediaConfig | VideoMediaConfig,
    clip_format: ClipFormat,
    data: pa.Table,
    *,
    root: Path,
    threads: int,
    described: dict[str, Any],
    scratch: Path | None = None,
) -> Artifact:
    """Decode all clips of a modality.

    Rows are by dialogue and utterance, so that another seed, which carves another dev split, finds
    the same artifact.

    Args:
        stage: the stage's name.
        key: its key.
        section: its section of the configuration.
        clip_format: what the clips are decoded to.
        data: the data stage's table.
        root: the folder that the clips' paths are relative to.
        threads: how many clips are decoded at a time.
        described: what the key was made of.
        scratch: where the clips are written; None for the system's temporary folder.

    Raises:
        DataError: clips cannot be read, and `on_missing` is `error`; up to `MOST_REFUSED` are
            named.
        InputError: nothing to decode with is installed.
        StorageLostError: there is no room.
    """
    need_media()
    started = time.perf_counter()
    data = data.sort_by([("dialogue_id", "ascending"), ("utterance_id", "ascending")])
    sources = clip_sources(data, clip_format.modality, section.cut)
    path = (scratch or Path(tempfile.gettempdir())) / uuid.uuid4().hex
    problems: list[str] = []
    try:
        with ClipWriter(path, clip_format.kind) as writer:
            for source, clip in _decoded(sources, root, clip_format.read, threads):
                if isinstance(clip, UnreadableError):
                    problems.append(f"{source.place} ({source.path or 'no path'}: {clip})")
                writer.append(clip_format.blank if isinstance(clip, UnreadableError) else clip)
        if problems and section.on_missing == "error":
            raise DataError(_refusal(stage, problems, len(sources), clip_format.blank_name))
        table = writer.table(data.select(["dialogue_id", "utterance_id"]), clip_format.shape)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise StorageLostError(
            f"{path.parent}: cannot write the clips of {stage}: {error.strerror}; make room, or "
            "choose another --storage"
        ) from None
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    seconds = time.perf_counter() - started
    metrics: dict[str, Any] = {
        "seconds": seconds,
        "samples_per_second": len(sources) / seconds,
        "num_bytes": path.stat().st_size,
        "missing": problems,
    }
    if problems:
        counted = f"{len(problems)} of {len(sources)} clips cannot be read and became"
        listed = and_more(problems, MOST_REPLACED, "; ")
        metrics["warnings"] = [f"{stage}: {counted} {section.on_missing}: {listed}"]
    return Artifact(stage, key, table, metrics, described, media=str(path))


def _decoded(
    sources: Sequence[ClipSource], root: Path, read: Read, threads: int
) -> Iterator[tuple[ClipSource, Clip | UnreadableError]]:
    """Each clip in order, or why it cannot be read; decoders let other threads work."""
    one = functools.partial(_decode, root=root, read=read)
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(sources), BLOCK):
            block = sources[start : start + BLOCK]
            yield from zip(block, pool.map(one, block), strict=True)


def _decode(source: ClipSource, root: Path, read: Read) -> Clip | UnreadableError:
    if source.path is None:
        return UnreadableError("the table names no file")
    try:
        path = inside(root, source.path)
    except DataError as error:
        return UnreadableError(error.reason)
    if not path.is_file():
        return UnreadableError("there is no such file")
    try:
        return read(path, source.start, source.end)
    except UnreadableError as error:
        return error


def _refusal(stage: str, problems: Sequence[str], total: int, blank_name: str) -> str:
    listed = and_more(problems, MOST_REFUSED, "; ")
    return (
        f"{stage}: {len(problems)} of {total} clips cannot be read: {listed}; check "
        f"data.media and the paths, drop these utterances, or set {stage}.on_missing={blank_name}"
    )
