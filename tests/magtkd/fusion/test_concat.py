from __future__ import annotations

import pytest
import torch

from magtkd.fusion import Concat

MASK = torch.ones(2, 5, dtype=torch.bool)
SPEAKER = torch.zeros(2, 5, dtype=torch.long)


def build(*modalities: str) -> Concat:
    torch.manual_seed(0)
    return Concat(hidden_dim=7, num_classes=3, dropout=0.5, modalities=modalities).eval()


def test_only_the_anchor_has_logits() -> None:
    text, audio = torch.randn(2, 5, 7), torch.randn(2, 5, 7)
    output = build("text", "audio")(text, audio, None, MASK, SPEAKER)
    assert output.predicted_logits is output.text_logits
    assert output.text_logits.shape == (2, 5, 3)
    assert output.text_hidden.shape == (2, 5, 7)
    assert output.audio_logits is output.video_logits is output.audio_hidden is None


def test_without_text_the_anchor_is_the_first_there_is() -> None:
    output = build("video", "audio")(
        None, torch.randn(2, 5, 7), torch.randn(2, 5, 7), MASK, SPEAKER
    )
    assert list(output.logits) == ["audio"]


def test_utterances_do_not_see_each_other() -> None:
    model = build("text")
    text = torch.randn(2, 5, 7)
    whole = model(text, None, None, MASK, SPEAKER).text_logits
    single = model(text[:1, 2:3], None, None, MASK[:1, :1], SPEAKER[:1, :1]).text_logits
    torch.testing.assert_close(single[0, 0], whole[0, 2])


def test_other_modalities_than_built_with_are_refused() -> None:
    with pytest.raises(ValueError, match="built with text, audio but given text"):
        build("text", "audio")(torch.randn(2, 5, 7), None, None, MASK, SPEAKER)
    with pytest.raises(ValueError, match="choose one or more of text, audio, video, once each"):
        build("text", "text")
