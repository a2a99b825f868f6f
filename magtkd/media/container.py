"""Opening files with PyAV, and the messages for those that cannot be read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from magtkd.errors import InputError, first_line

__all__ = ["UnreadableError", "need_media", "open_container"]


class UnreadableError(Exception):
    """A clip that cannot be read; the message is the reason, in a few words."""


def need_media() -> None:
    """Check that clips can be decoded at all.

    Raises:
        InputError: PyAV is not installed.
    """
    try:
        import av
    except ImportError:
        raise InputError(
            "decoding clips needs PyAV, which is not installed; pip install 'magtkd[media]'"
        ) from None
    # What is wrong with a clip is reported once, in our messages.
    av.logging.set_level(None)


@contextlib.contextmanager
def open_container(path: Path, kind: str) -> Iterator[Any]:
    """A file's container, which has a stream of a kind.

    Args:
        path: the file.
        kind: `audio` or `video`.

    Raises:
        UnreadableError: it cannot be opened, decoded, or has no such stream.
    """
    import av

    try:
        # A title in Latin-1 has no effect on audio and video.
        with av.open(str(path), metadata_errors="replace") as container:
            if not getattr(container.streams, kind):
                raise UnreadableError(f"it has no {kind}")
            yield container
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise UnreadableError(reason.lower()) from None
