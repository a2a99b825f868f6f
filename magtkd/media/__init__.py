"""Waveforms and frames of the utterances' clips, decoded once. Imports no torch."""

from magtkd.media.clips import Clips, ClipWriter
from magtkd.media.files import find_absent, media_fingerprints
from magtkd.media.make import ClipFormat, frame_format, make_media, waveform_format
from magtkd.media.wanted import wanted_frames

__all__ = [
    "ClipFormat",
    "ClipWriter",
    "Clips",
    "find_absent",
    "frame_format",
    "make_media",
    "media_fingerprints",
    "wanted_frames",
    "waveform_format",
]
