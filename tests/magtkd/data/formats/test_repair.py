from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magtkd.data.formats.repair import decode_bytes, repair_text

SOUND = "“I’ll…” — Café, fiancée; won‘t – Olé!"


@pytest.mark.parametrize(
    "damaged",
    [
        SOUND,
        decode_bytes(SOUND.encode()),
        decode_bytes(b"\xef\xbb\xbf" + SOUND.encode()),
        decode_bytes(SOUND.encode("cp1252")),
        SOUND.encode("cp1252").decode("latin-1"),
        SOUND.encode().decode("latin-1"),
        SOUND.encode("cp1252").decode("latin-1").encode("ascii", "backslashreplace").decode(),
        SOUND.encode().replace(b"\xe2\x80\x9d", b"").decode("cp1252").replace("€¦", "€¦â€\x9d"),
    ],
)
def test_every_kind_of_damage_is_undone(damaged: str) -> None:
    assert repair_text(damaged) == SOUND


@pytest.mark.parametrize(
    ("damaged", "sound"),
    [
        ("You?ve had it, he?s gone, Huh? Well", "You’ve had it, he’s gone, Huh? Well"),
        ("Oh?my Gawd", "Oh—my Gawd"),
        ("Is it?Really?!", "Is it?Really?!"),
        ("a\xa0b", "a b"),
        ("Caf\u00e9\x92s", "Café’s"),
    ],
)
def test_lost_characters(damaged: str, sound: str) -> None:
    assert repair_text(damaged) == sound


@settings(deadline=None)
@given(st.text(st.characters(max_codepoint=126, exclude_characters="?\\")))
def test_plain_text_is_left_alone(text: str) -> None:
    assert repair_text(text) == text


@settings(deadline=None)
@given(st.text(st.sampled_from("ab ’‘“”—…–éóñüŽ€")))
def test_windows_bytes_and_misread_utf8_come_back(text: str) -> None:
    assert repair_text(text) == text
    assert repair_text(text.encode().decode("latin-1")) == text


@settings(deadline=None)
@given(st.binary())
def test_anything_becomes_text_that_can_be_encoded(raw: bytes) -> None:
    assert repair_text(decode_bytes(raw)).encode("utf-8") is not None
