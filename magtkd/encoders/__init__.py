"""Encoders: from an utterance's features, its text in the conversation, or its clip, to hidden
features."""

from magtkd.encoders.audio import AudioEncoder
from magtkd.encoders.clip import ClipEncoder, ClipOptions
from magtkd.encoders.features import FeatureEncoder
from magtkd.encoders.prompts import know_speakers
from magtkd.encoders.text import TextEncoder
from magtkd.encoders.tokens import TokenBatch, TokenizedUtterances
from magtkd.encoders.video import VideoEncoder

__all__ = [
    "AudioEncoder",
    "ClipEncoder",
    "ClipOptions",
    "FeatureEncoder",
    "TextEncoder",
    "TokenBatch",
    "TokenizedUtterances",
    "VideoEncoder",
    "know_speakers",
]
