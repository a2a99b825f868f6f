"""Synthetic conversations, for tests, demonstrations and the quickstart.

Emotions follow a Markov chain: a speaker keeps their own last emotion (inertia), takes over that
of the utterance before (contagion), or feels something new. Words are drawn from invented
vocabularies, features around a mean for each emotion.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from magtkd.config import SyntheticConfig
from magtkd.data.columns import features_column

__all__ = ["EMOTIONS", "make_synthetic"]

EMOTIONS = ("neutral", "joy", "sadness", "anger", "surprise", "fear", "disgust")
DEV_SHARE, TEST_SHARE = 0.1, 0.2
WORDS_PER_VOCABULARY = 24
WORDS_PER_UTTERANCE = (4, 13)
SYLLABLES = tuple("".join(pair) for pair in itertools.product("bdfglmnprstv", "aeiou"))
Generator = np.random.Generator


@dataclass
class _Chain:
    """Utterances so far, as columns of numbers."""

    dialogue: list[int] = field(default_factory=list)
    position: list[int] = field(default_factory=list)
    speaker: list[int] = field(default_factory=list)
    emotion: list[int] = field(default_factory=list)


def make_synthetic(config: SyntheticConfig) -> pa.Table:
    """A table of made-up conversations: about 70 % train, 10 % dev, 20 % test by conversation.

    The same configuration gives the same table. Emotions, words and each modality's features have
    random streams of their own, so that one signal's strength changes nothing but its column.
    """
    streams = [np.random.default_rng(seed) for seed in np.random.SeedSequence(config.seed).spawn(5)]
    splits = _splits(config.num_dialogues)
    chain = _make_chain(config, splits, streams[0])
    emotion = np.array(chain.emotion)
    digits = len(str(config.num_dialogues - 1))
    columns = {
        "split": [splits[dialogue] for dialogue in chain.dialogue],
        "dialogue_id": [f"d{dialogue:0{digits}d}" for dialogue in chain.dialogue],
        "utterance_id": pa.array(chain.position, pa.int32()),
        "speaker": [f"S{speaker + 1}" for speaker in chain.speaker],
        "text": _make_texts(emotion, config, streams[1]),
        "label": [EMOTIONS[index] for index in chain.emotion],
    }
    strengths = {
        "text_features": (config.text_dim, config.text_signal),
        "audio_features": (config.audio_dim, config.audio_signal),
        "video_features": (config.video_dim, config.video_signal),
    }
    for (name, (width, signal)), generator in zip(strengths.items(), streams[2:], strict=True):
        means = _means(config.num_emotions, width, generator)
        noise = generator.standard_normal((len(emotion), width))
        columns[name] = features_column(signal * means[emotion] + noise)
    return pa.table(columns)


def _splits(num_dialogues: int) -> list[str]:
    num_dev = max(1, round(DEV_SHARE * num_dialogues))
    num_test = max(1, round(TEST_SHARE * num_dialogues))
    num_train = num_dialogues - num_dev - num_test
    return ["train"] * num_train + ["dev"] * num_dev + ["test"] * num_test


def _make_chain(config: SyntheticConfig, splits: Sequence[str], generator: Generator) -> _Chain:
    chain = _Chain()
    # Neutral is twice as frequent as each of the others, as it is in recorded conversations.
    prior = np.ones(config.num_emotions)
    prior[0] = 2.0
    for dialogue, split in enumerate(splits):
        if split != "train":
            # What train never felt cannot be learned, and would be refused when read.
            prior[np.setdiff1d(np.arange(config.num_emotions), chain.emotion)] = 0.0
        _add_dialogue(chain, dialogue, prior / prior.sum(), config, generator)
    return chain


def _add_dialogue(
    chain: _Chain,
    dialogue: int,
    prior: npt.NDArray[np.float64],
    config: SyntheticConfig,
    generator: Generator,
) -> None:
    length = 1 + int(generator.poisson(config.mean_length - 1))
    num_speakers = min(int(generator.integers(2, 4)), config.num_speakers)
    speakers = generator.choice(config.num_speakers, num_speakers, replace=False)
    turns = speakers[generator.integers(num_speakers, size=length)]
    chances = generator.random(length)
    fresh = generator.choice(len(prior), size=length, p=prior)
    own_last: dict[int, int] = {}
    for position, (speaker, chance) in enumerate(zip(turns.tolist(), chances, strict=True)):
        emotion = int(fresh[position])
        if chance < config.inertia:
            emotion = own_last.get(speaker, emotion)
        elif chance < config.inertia + config.contagion and position > 0:
            emotion = chain.emotion[-1]
        own_last[speaker] = emotion
        chain.dialogue.append(dialogue)
        chain.position.append(position)
        chain.speaker.append(speaker)
        chain.emotion.append(emotion)


def _vocabularies(num_emotions: int) -> npt.NDArray[np.str_]:
    """Invented words, [1 + emotions, words]; the first row is common to all emotions."""
    shape = (1 + num_emotions, WORDS_PER_VOCABULARY)
    # A fixed order, so that a word means the same whatever the seed.
    codes = np.random.default_rng(0).permutation(len(SYLLABLES) ** 3)[: shape[0] * shape[1]]
    parts = np.unravel_index(codes, (len(SYLLABLES),) * 3)
    words = ["".join(SYLLABLES[index] for index in word) for word in zip(*parts, strict=True)]
    return np.array(words).reshape(shape)


def _make_texts(
    emotion: npt.NDArray[np.int64], config: SyntheticConfig, generator: Generator
) -> list[str]:
    lengths = generator.integers(*WORDS_PER_UTTERANCE, size=len(emotion))
    is_emotional = generator.random(lengths.sum()) < config.word_signal
    columns = generator.integers(WORDS_PER_VOCABULARY, size=lengths.sum())
    rows = np.where(is_emotional, 1 + np.repeat(emotion, lengths), 0)
    words = _vocabularies(config.num_emotions)[rows, columns]
    return [" ".join(part) for part in np.split(words, np.cumsum(lengths)[:-1])]


def _means(num_emotions: int, width: int, generator: Generator) -> npt.NDArray[np.float64]:
    """A mean for each emotion, [emotions, width], at a mean distance of 1 from one another."""
    means = generator.standard_normal((num_emotions, width))
    if width >= num_emotions:
        means = np.linalg.qr(means.T)[0].T  # equal distances between all
    means -= means.mean(axis=0)
    first, second = np.triu_indices(num_emotions, 1)
    distances = np.linalg.norm(means[first] - means[second], axis=1)
    return np.asarray(means / distances.mean())
