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
    """How many frames of which size the video encoder gets: those of `video_media`, else those of
    the encoder's own configuration.

    Raises:
        ConfigError: neither has them.
    """
    section = config.video_media
    if section.num_frames is not None and section.image_size is not None:
        return section.num_frames, section.image_size
    try:
        settings = _read_model_config(config.video.encoder)
    except Exception:  # a broken file, or one of the many of the hub's client
        settings = {}
    num_frames = section.num_frames or _whole(settings, "num_frames")
    image_size = section.image_size or _whole(settings, "image_size")
    if num_frames is None or image_size is None:
        missing = "num_frames" if num_frames is None else "image_size"
        raise ConfigError(
            f"video.encoder: {config.video.encoder!r} has no {missing} in its configuration, or "
            f"cannot be read; set video_media.{missing}, or give the folder or id of a video "
            "encoder"
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
