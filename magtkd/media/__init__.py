"""Waveforms and frames of the utterances' clips, decoded once. Imports no torch."""

from magtkd.media.clips import Clips, ClipWriter
from magtkd.media.files import find_absent, media_fingerprints
from magtkd.media.make import MEDIA_STAGES, make_media
from magtkd.media.wanted import wanted_frames

__all__ = [
    "MEDIA_STAGES",
    "ClipWriter",
    "Clips",
    "find_absent",
    "make_media",
    "media_fingerprints",
    "wanted_frames",
]
