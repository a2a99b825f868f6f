"""Waveforms from sound and video files: mono, at one sample rate, as 16-bit samples."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from magtkd.media.container import UnreadableError, open_container

__all__ = ["read_waveform"]

SOUND_FILES = {".wav", ".flac", ".ogg"}
LOUDEST = 32767

Samples = npt.NDArray[np.int16]


def read_waveform(
    path: Path, start: float | None, end: float | None, *, rate: int, max_samples: int
) -> Samples:
    """The sound of a file, or of a part of it, as [samples] int16.

    Args:
        path: a sound or video file.
        start: first second, None for the file's.
        end: last second, None for the file's.
        rate: samples a second of the result.
        max_samples: what is longer is cut.

    Raises:
        UnreadableError: there is no such file, it has no sound, or it is damaged.
    """
    # A second more than is kept, so that the resampler's edge is not in it.
    longest = max_samples / rate + 1
    end = min(math.inf if end is None else end, (start or 0.0) + longest)
    read = _read_sound if path.suffix.lower() in SOUND_FILES else _read_stream
    mono, own_rate = read(path, start or 0.0, end)
    if not mono.size or not np.isfinite(mono).all():
        raise UnreadableError("it has no sound")
    mono = _resample(mono, own_rate, rate)[:max_samples]
    return cast(Samples, np.round(np.clip(mono, -1.0, 1.0) * LOUDEST).astype(np.int16))


def _resample(mono: npt.NDArray[Any], own: int, rate: int) -> npt.NDArray[Any]:
    if own == rate:
        return mono
    from scipy.signal import resample_poly

    common = math.gcd(own, rate)
    return cast(npt.NDArray[Any], resample_poly(mono, rate // common, own // common))


def _read_sound(path: Path, start: float, end: float) -> tuple[npt.NDArray[Any], int]:
    """[samples] float64, the mean of the channels, and the sample rate, by soundfile."""
    try:
        import soundfile
    except ImportError:
        return _read_stream(path, start, end)
    try:
        with soundfile.SoundFile(path) as file:
            file.seek(min(round(start * file.samplerate), file.frames))
            wanted = round(min(end - start, file.frames) * file.samplerate)
            samples = file.read(max(0, wanted), dtype="float32", always_2d=True)
            return samples.mean(axis=1, dtype=np.float64), file.samplerate
    except (soundfile.SoundFileError, RuntimeError):
        # Some recorders name anything .wav: let PyAV decide by the content.
        return _read_stream(path, start, end)


def _read_stream(path: Path, start: float, end: float) -> tuple[npt.NDArray[Any], int]:
    """[samples] float64, the mean of the channels, and the sample rate, by PyAV."""
    import av

    with open_container(path, "audio") as container:
        stream = container.streams.audio[0]
        if start > 1:
            container.seek(int((start - 1) * av.time_base))
        parts: list[npt.NDArray[np.float64]] = []
        rate, first = 0, 0.0
        for frame in container.decode(stream):
            rate = rate or frame.sample_rate
            at = frame.time if frame.time is not None else 0.0
            first = first if parts else at
            if at >= end or frame.sample_rate != rate:
                break
            # Frame by frame: the channels may change within a stream.
            parts.append(_samples(frame).mean(axis=1, dtype=np.float64))
    if not parts:
        raise UnreadableError("it has no sound in its span")
    samples = np.concatenate(parts)
    # A clip's first time stamp is often not 0; only a span is cut by time.
    skip = round(max(0.0, start - first) * rate) if start else 0
    return samples[skip : skip + round(min(end - start, len(samples)) * rate)], rate


def _samples(frame: Any) -> npt.NDArray[np.float32]:
    """[samples, channels] of a frame, in -1 to 1."""
    values = frame.to_ndarray()
    if not frame.format.is_planar:
        values = values.reshape(-1, frame.layout.nb_channels).T
    if values.dtype == np.uint8:
        values = (values.astype(np.float32) - 128) / 128
    elif values.dtype.kind == "i":
        values = values.astype(np.float32) / -float(np.iinfo(values.dtype).min)
    return values.T.astype(np.float32, copy=False)  # type: ignore[no-any-return]
