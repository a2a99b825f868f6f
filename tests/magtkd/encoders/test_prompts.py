import pytest
from hypothesis import given
from hypothesis import strategies as st

from magtkd.encoders.prompts import (
    NUM_UNKNOWN,
    build_prompt,
    conversation_rows,
    know_speakers,
    normalise_name,
    speaker_tokens,
    turn_speakers,
)

TURNS = [["<joey>", "hi"], ["<ross>", "hi", "Joey"], ["<joey>", "how", "are", "you"]]
SUFFIX = ["</s>", "Now", "<joey>", "feels", "<mask>"]

turns_ = st.lists(st.lists(st.integers(), min_size=1, max_size=7), min_size=1, max_size=11)


@pytest.mark.parametrize(
    ("name", "normal"),
    [
        ("Joey", "joey"),
        ("Mr. Treeger", "mr_treeger"),
        (" Phoebe Sr ", "phoebe_sr"),
        ("JOSÉ", "josé"),
        ("Ses05_F", "ses05_f"),
        ("?!", ""),
    ],
)
def test_normalise_name(name: str, normal: str) -> None:
    assert normalise_name(name) == normal


def test_a_speaker_of_one_conversation_is_not_known() -> None:
    dialogues = ["0", "0", "0", "1", "1", "1", "1"]
    speakers = ["Ross", "Joey", "Tag", "Joey", "Ross", "ross", "Mona"]
    assert know_speakers(dialogues, speakers) == ("ross", "joey")


def test_the_most_frequent_speakers_are_known() -> None:
    dialogues = ["0", "0", "0", "1", "1", "1", "2"]
    speakers = ["b", "a", "c", "a", "b", "c", "c"]
    assert know_speakers(dialogues, speakers, max_known=2) == ("c", "a")


def test_unknown_speakers_are_told_apart() -> None:
    tokens = turn_speakers(["Ross", "Tag", "Mona", "Tag"], ["ross"])
    assert tokens == ["<speaker:ross>", "<unknown:1>", "<unknown:2>", "<unknown:1>"]


def test_a_name_without_letters_is_unknown() -> None:
    assert turn_speakers(["?!"], know_speakers(["0", "1"], ["?!", "?!"])) == ["<unknown:1>"]


@given(st.lists(st.text()), st.lists(st.from_regex("[a-z]+", fullmatch=True), unique=True))
def test_every_turn_has_a_token_of_the_model(speakers: list[str], known: list[str]) -> None:
    assert set(turn_speakers(speakers, known)) <= set(speaker_tokens(known))


@given(st.lists(st.text(min_size=1)))
def test_a_turn_s_token_knows_no_later_turn(speakers: list[str]) -> None:
    tokens = turn_speakers(speakers, [])
    for end in range(len(speakers)):
        assert turn_speakers(speakers[:end], []) == tokens[:end]


def test_many_unknown_speakers_share_the_last_token() -> None:
    tokens = turn_speakers([f"extra {number}" for number in range(NUM_UNKNOWN + 3)], [])
    assert tokens[NUM_UNKNOWN - 1 :] == [f"<unknown:{NUM_UNKNOWN}>"] * 4


def test_speaker_names_cannot_clash_with_special_tokens() -> None:
    assert not {"<s>", "</s>", "<mask>", "<pad>", "<unk>"} & set(
        speaker_tokens(["s", "mask", "pad", "unk"])
    )


def test_conversations_with_one_id_in_two_splits_stay_apart() -> None:
    splits = ["train", "train", "train", "test", "test"]
    rows = list(conversation_rows(splits, ["0", "1", "0", "0", "1"]))
    assert rows == [[0, 2], [1], [3], [4]]


def test_prompt_shows_the_conversation_oldest_first() -> None:
    prompt = build_prompt(TURNS, SUFFIX, context=None, max_length=64)
    assert " ".join(prompt) == (
        "<joey> hi <ross> hi Joey <joey> how are you </s> Now <joey> feels <mask>"
    )


@pytest.mark.parametrize(("context", "first"), [(0, 2), (1, 1), (2, 0), (17, 0)])
def test_context_counts_the_turns_before(context: int, first: int) -> None:
    prompt = build_prompt(TURNS, SUFFIX, context=context, max_length=64)
    assert prompt == [word for turn in TURNS[first:] for word in turn] + SUFFIX


def test_truncation_cuts_the_oldest() -> None:
    prompt = build_prompt(TURNS, SUFFIX, context=None, max_length=11)
    assert prompt == ["hi", "Joey", *TURNS[2], *SUFFIX]


@given(turns_, st.none() | st.integers(0, 13), st.integers(3, 41))
def test_a_truncated_prompt_is_the_end_of_the_whole(
    turns: list[list[int]], context: int | None, max_length: int
) -> None:
    suffix = [-1, -2, -3]
    prompt = build_prompt(turns, suffix, context=context, max_length=max_length)
    whole = build_prompt(turns, suffix, context=context, max_length=10**6)
    assert prompt == whole[-max_length:]
    assert prompt[-3:] == suffix
