"""The sections of the data: the table, its clips, and a synthetic corpus."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from magtkd.config import declared
from magtkd.config.sections.section import Positive, Section, Weight, Width

__all__ = ["AudioMediaConfig", "DataConfig", "SyntheticConfig", "VideoMediaConfig"]


class SyntheticConfig(Section):
    """Synthetic conversations from a Markov chain of emotions; see `magtkd.data.synthetic`."""

    num_dialogues: Annotated[int, Field(ge=3, le=10**7)] = 90
    """Conversations in all three splits together."""
    mean_length: Annotated[float, Field(ge=1, le=10_000)] = 8.0
    """Mean number of utterances of a conversation."""
    num_speakers: Positive = 6
    """Speakers in the whole corpus; each conversation has two or three of them."""
    num_emotions: Annotated[int, Field(ge=2, le=7)] = 4
    """Number of labels."""
    inertia: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Probability that a speaker keeps the emotion of their own last utterance."""
    contagion: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Probability that a speaker takes over the emotion of the utterance before."""
    word_signal: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of an utterance's words that are drawn from its emotion's vocabulary."""
    text_dim: Width = 32
    """Width of the text features."""
    audio_dim: Width = 24
    """Width of the audio features."""
    video_dim: Width = 16
    """Width of the video features."""
    text_signal: Weight = 2.5
    """Distance of the emotions' means in the text features, in standard deviations of the noise."""
    audio_signal: Weight = 1.5
    """The same for the audio features."""
    video_signal: Weight = 0.75
    """The same for the video features."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of the corpus; apart from the training seed, so that the data stay while seeds vary."""

    @model_validator(mode="after")
    def _probabilities(self) -> Self:
        if self.inertia + self.contagion > 1:
            raise ValueError(
                f"inertia + contagion is {self.inertia + self.contagion:g}; keep it at most 1"
            )
        return self


class DataConfig(Section):
    """Which table of conversations, and how it is split and numbered."""

    CONDITIONS = declared.DATA

    path: str | None = None
    """A Parquet file in the schema, a folder of these, or a folder with MELD's three CSV files. In
    a file, relative to that file; on the command line, to the working directory."""
    media: str | None = None
    """The folder that `audio_path` and `video_path` are relative to; null is the table's own."""
    synthetic: SyntheticConfig | None = None
    """Instead of `path`: a synthetic corpus."""
    standardise: bool = True
    """Bring each column of the features to mean 0 and standard deviation 1 on train; published
    fusion weights expect features as they are."""
    dev_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the train conversations that become dev where the table has no dev split."""
    speakers: Literal["conversation", "name", "published"] = "conversation"
    """Number speakers by their first turn within each conversation; by name over the corpus (names
    that train lacks share one number); or, for published fusion weights, as the field's feature
    files number them: S1, S2, ... by their number less one, and IEMOCAP's men 0, women 1 (Ses01_M,
    Ses01_F, M, F)."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.path is not None and self.synthetic is not None:
            raise ValueError("path and synthetic exclude each other; set one of them to null")
        return self


class AudioMediaConfig(Section):
    """The waveforms that an audio encoder reads: mono, decoded once for all trials."""

    published_sample_rate: bool = False
    """Resample to 22,050 Hz and call it 16,000 Hz, as the published code does."""
    max_samples: Annotated[int, Field(ge=400, lt=2**31)] = 400_000
    """A longer clip is cut after so many samples."""
    on_missing: Literal["error", "silence"] = "error"
    """A clip that cannot be read ends the stage, or becomes a second of silence."""
    cut: Literal["shared", "always", "never"] = "shared"
    """Cut clips by `start` and `end`: where several utterances share a file, always, or never."""


class VideoMediaConfig(Section):
    """The frames that a video encoder reads: evenly spaced, decoded once for all trials."""

    num_frames: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Frames of each clip; null is what `video.encoder` asks for."""
    image_size: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Height and width in pixels; null is what `video.encoder` asks for."""
    on_missing: Literal["error", "black"] = "error"
    """A clip that cannot be read ends the stage, or becomes black frames."""
    cut: Literal["shared", "always", "never"] = "shared"
    """Cut clips by `start` and `end`: where several utterances share a file, always, or never."""
