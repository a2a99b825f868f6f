"""Encoders: from an utterance's features, or its text in the conversation, to hidden features."""

from magtkd.encoders.features import FeatureEncoder
from magtkd.encoders.prompts import know_speakers
from magtkd.encoders.text import TextEncoder
from magtkd.encoders.tokens import TokenBatch, TokenizedUtterances

__all__ = ["FeatureEncoder", "TextEncoder", "TokenBatch", "TokenizedUtterances", "know_speakers"]
