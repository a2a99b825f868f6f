"""What an encoder asks of its media, from its configuration file alone."""

from __future__ import annotations

import functools
import json
from typing import Any

from magtkd.config import Config
from magtkd.errors import ConfigError
from magtkd.model_files import model_file

__all__ = ["wanted_frames"]


def wanted_frames(config: Config) -> tuple[int, int]:
    """How many frames of which size the video encoder gets: as `video_media` says, else as the
    encoder's own configuration does.

    Raises:
        ConfigError: neither says so.
    """
    section = config.video_media
    if section.num_frames is not None and section.image_size is not None:
        return section.num_frames, section.image_size
    try:
        says = _read_model_config(config.video.encoder)
    except Exception:  # a broken file, or one of the many of the hub's client
        says = {}
    num_frames = section.num_frames or _whole(says, "num_frames")
    image_size = section.image_size or _whole(says, "image_size")
    if num_frames is None or image_size is None:
        missing = "num_frames" if num_frames is None else "image_size"
        raise ConfigError(
            f"video.encoder: {config.video.encoder!r} does not say its {missing}, or cannot be "
            f"read; set video_media.{missing}, or give the folder or id of a video encoder"
        )
    return num_frames, image_size


@functools.lru_cache(maxsize=32)
def _read_model_config(encoder: str) -> dict[str, Any]:
    path = model_file(encoder, "config.json")
    tree = json.loads(path.read_text(encoding="utf-8")) if path else {}
    return tree if isinstance(tree, dict) else {}


def _whole(tree: dict[str, Any], name: str) -> int | None:
    value = tree.get(name)
    if isinstance(value, list) and len(set(value)) == 1:
        value = value[0]
    return value if isinstance(value, int) and value > 0 else None
