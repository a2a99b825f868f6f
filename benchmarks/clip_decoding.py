"""What decoding clips costs, and what reading them from the media artifact costs instead.

    python benchmarks/clip_decoding.py
    python benchmarks/clip_decoding.py --clips 8 --rounds 1

The clips are as MELD's: three seconds of 1280 x 720 pictures (H.264) with stereo sound; of noise
that moves. The peer decodes them anew each time, as a data set without such a stage does, with the
same decoder; ours reads what `audio_media` and `video_media` wrote. The files are in memory.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import av
import common
import numpy as np
import pyarrow as pa

from magtkd.media import Clips
from magtkd.media.audio import read_waveform
from magtkd.media.clips import ClipWriter
from magtkd.media.video import read_frames

SECONDS, RATE, FPS, SIZE = 3, 44_100, 24, (1280, 720)
MODEL_RATE, MAX_SAMPLES, NUM_FRAMES, IMAGE_SIZE = 16_000, 400_000, 8, 224


def write_clip(path: Path, generator: np.random.Generator) -> None:
    """Blurred noise that moves to the right, and audible noise."""
    small = generator.integers(0, 256, (SIZE[1] // 16, SIZE[0] // 16, 3), np.uint8)
    picture = small.repeat(16, axis=0).repeat(16, axis=1)
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream("libx264", rate=FPS)
        video.width, video.height, video.pix_fmt = *SIZE, "yuv420p"
        audio: Any = container.add_stream("aac", rate=RATE, layout="stereo")
        for number in range(SECONDS * FPS):
            moved = np.ascontiguousarray(np.roll(picture, 5 * number, axis=1))
            container.mux(video.encode(av.VideoFrame.from_ndarray(moved, format="rgb24")))
        container.mux(video.encode())
        noise = generator.normal(0, 0.1, (2, SECONDS * RATE)).astype(np.float32)
        samples = av.AudioFrame.from_ndarray(noise, format="fltp", layout="stereo")
        samples.sample_rate = RATE
        container.mux(audio.encode(samples))
        container.mux(audio.encode())


def decode(path: Path, kind: str) -> np.ndarray:
    """One clip, as the stages decode it."""
    if kind == "frames":
        return read_frames(path, None, None, num_frames=NUM_FRAMES, image_size=IMAGE_SIZE)
    return read_waveform(path, None, None, rate=MODEL_RATE, max_samples=MAX_SAMPLES)


def keep(paths: list[Path], kind: str, folder: Path) -> Clips:
    """All clips as the stage leaves them."""
    identity = pa.table(
        {
            "split": ["train"] * len(paths),
            "dialogue_id": ["0"] * len(paths),
            "utterance_id": list(range(len(paths))),
        }
    )
    media = folder / kind
    with ClipWriter(media, kind) as writer:
        for path in paths:
            writer.append(decode(path, kind))
    shape = (NUM_FRAMES, IMAGE_SIZE, IMAGE_SIZE, 3) if kind == "frames" else ()
    return Clips(writer.table(identity, shape), str(media), identity)


def timed(names: Iterable[Any], read: Callable[[Any], np.ndarray]) -> dict[str, Any]:
    """Read all clips, and add up what is in them, which takes a look at every byte."""
    started = time.perf_counter()
    total = sum(int(read(name).sum(dtype=np.int64)) for name in names)
    return {"seconds": time.perf_counter() - started, "sum": total}


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    result: dict[str, Any] = {"machine": common.machine(), "kinds": {}}
    rows = []
    with common.scratch() as folder:
        paths = [folder / f"{number}.mp4" for number in range(options.clips)]
        generator = np.random.default_rng(0)
        for path in paths:
            write_clip(path, generator)
        for kind in ("frames", "waveform"):
            clips = keep(paths, kind, folder)

            rounds = common.alternate(
                {
                    "decoded": functools.partial(
                        timed, paths, functools.partial(decode, kind=kind)
                    ),
                    "read": functools.partial(timed, range(len(paths)), clips.__getitem__),
                },
                options.rounds,
            )
            for one in rounds:
                assert one["decoded"]["sum"] == one["read"]["sum"], "what is read is not the clip"
            speed = {name: len(paths) / common.median_seconds(rounds, name) for name in rounds[0]}
            ratio = common.median_ratio(rounds, "decoded", "read")
            result["kinds"][kind] = {"rounds": rounds, "clips_per_second": speed, "ratio": ratio}
            rows.append([kind, f"{speed['decoded']:.1f}", f"{speed['read']:.0f}", f"{ratio:.0f}"])
    columns = ["", "decoded, clips/s", "read from the artifact, clips/s", "times faster"]
    common.publish(f"{options.clips} clips", result, columns, rows, options.out)


if __name__ == "__main__":
    main()
