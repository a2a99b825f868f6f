"""What the checks of `gpu.py` train on: made-up conversations, clips, and random models in folders.

No hub, no codec and no data are needed. Nothing has dropout, so that every device computes the
same, unless a check asks for it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from magtkd.config import Config, SyntheticConfig
from magtkd.data import make_corpus, make_synthetic, prepare, read_metadata
from magtkd.data.columns import features_column
from magtkd.encoders.tiny import tiny_tokenizer
from magtkd.media.clips import ClipWriter
from magtkd.model_files import MINILM
from magtkd.pipeline import CoreTrainer
from magtkd.store import Artifact
from magtkd.training import Session

__all__ = [
    "CPU",
    "Inputs",
    "corpus",
    "first_rows",
    "has_minilm",
    "make_folder",
    "model_of",
    "the_device",
]

CPU = torch.device("cpu")
RATE = 16_000
SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
SPEECH = {
    "conv_dim": (16, 16),
    "conv_kernel": (16, 4),
    "conv_stride": (80, 4),
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "mask_time_length": 2,
}
# Speech encoders have dropouts that are no layers, which `adapt` leaves as the model has them.
SPEECH_DROPOUTS = ("activation_dropout", "attention_dropout", "feat_proj_dropout", "layerdrop")
PICTURES = {"image_size": 16, "patch_size": 8, "num_frames": 4}


def the_device() -> torch.device:
    """CUDA where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


# --- models -----------------------------------------------------------------------------------


def has_minilm() -> bool:
    """Whether the package of the encoder `minilm` is installed."""
    return importlib.util.find_spec(MINILM) is not None


def model_of(kind: str, sizes: Mapping[str, Any]) -> Any:
    """A random encoder of a kind; without sizes, as large as its configuration's defaults."""
    import transformers

    names = {
        "bert": "Bert",
        "roberta": "Roberta",
        "data2vec-audio": "Data2VecAudio",
        "wav2vec2": "Wav2Vec2",
        "hubert": "Hubert",
        "wavlm": "WavLM",
        "timesformer": "Timesformer",
        "videomae": "VideoMAE",
    }
    config = getattr(transformers, f"{names[kind]}Config")(**sizes)
    return getattr(transformers, f"{names[kind]}Model")(config)


def make_folder(folder: Path, kind: str, sizes: Mapping[str, Any] | None = None) -> Path:
    """A random encoder in the hub's layout, small unless `sizes` says otherwise."""
    import transformers

    torch.manual_seed(0)
    options: dict[str, Any] = dict(SMALL if sizes is None else sizes)
    if kind in {"bert", "roberta"}:
        tokenizer = tiny_tokenizer(["we are glad", "we are sad", "who knows"], None)
        tokenizer.save_pretrained(folder)
        options |= {"vocab_size": len(tokenizer)} if sizes is None else {}
        options |= {"pad_token_id": tokenizer.pad_token_id}
        options.setdefault("max_position_embeddings", 80)
    elif kind in {"timesformer", "videomae"}:
        options |= PICTURES if sizes is None else {}
    else:
        if sizes is None:
            del options["hidden_dropout_prob"], options["attention_probs_dropout_prob"]
            options |= SPEECH | {"hidden_dropout": 0.0} | dict.fromkeys(SPEECH_DROPOUTS, 0.0)
            if kind == "data2vec-audio":
                options |= {"conv_pos_kernel_size": 3, "num_conv_pos_embeddings": 2}
        has_mask = kind in {"data2vec-audio", "wavlm"}
        features = transformers.Wav2Vec2FeatureExtractor(return_attention_mask=has_mask)
        features.save_pretrained(folder)
    model_of(kind, options).save_pretrained(folder)
    return folder


# --- conversations and clips ------------------------------------------------------------------


def corpus(*, num_dialogues: int = 24, mean_length: float = 3.0, width: int = 24) -> Artifact:
    """The data stage's artifact: conversations with all three modalities' features."""
    widths = {"text_dim": width, "audio_dim": width, "video_dim": width}
    config = SyntheticConfig(
        num_dialogues=num_dialogues, mean_length=mean_length, num_emotions=3, **widths
    )
    table = prepare(make_corpus(make_synthetic(config), "synthetic"), Config().data, seed=0)
    return Artifact("data", "", table, {}, {})


def first_rows(data: Artifact, number: int) -> Artifact:
    """At most so many utterances of each split."""
    split = data.table["split"].to_numpy()
    kept = [np.flatnonzero(split == name)[:number] for name in ("train", "dev", "test")]
    return Artifact("data", "", data.table.take(np.concatenate(kept)), {}, {})


class Inputs:
    """The artifacts that sessions read, and sessions on them.

    Args:
        folder: where clips are written.
        data: the conversations.
        seconds: length of the longest clip of speech; others are up to a third shorter.
        frames: [F, S, S, 3], the shape of each clip of video.
    """

    def __init__(
        self,
        folder: Path,
        data: Artifact,
        *,
        seconds: float = 0.3,
        frames: tuple[int, ...] = (4, 16, 16, 3),
    ) -> None:
        self._folder, self._seconds, self._frames = folder, seconds, frames
        self.artifacts = {"data": data}

    def session(
        self, stage: str, values: Mapping[str, Any], device: torch.device
    ) -> Session[Any, Any]:
        """A session of a stage whose section has these values, at its start."""
        given = dict(values)
        if "recipe" not in given:  # it has a dropout of its own
            given.setdefault("dropout", 0.0)
        config = Config.model_validate({"seed": 1, stage: given})
        wanted = ["data", "teacher", f"{stage}_media"] if stage in {"audio", "video"} else ["data"]
        for name in wanted:
            if name not in self.artifacts:
                self.artifacts[name] = self._make(name)
        upstream = {name: self.artifacts[name] for name in wanted}
        return CoreTrainer(str(device)).open_session(stage, config, upstream)

    def _make(self, name: str) -> Artifact:
        if name == "teacher":
            return self._teacher()
        write = self._write_sound if name == "audio_media" else self._write_frames
        return write(self.artifacts["data"].table)

    def _teacher(self) -> Artifact:
        """What a teacher might say: logits that lean to the label, features of its own width.

        Utterances of a label differ: where a whole batch has one distribution, its correlation over
        the batch is one of rounding errors, which no two devices share."""
        table = self.artifacts["data"].table
        label = table["label"].to_numpy()
        num_classes = len(read_metadata(table).labels)
        generator = np.random.default_rng(0)
        noise = generator.standard_normal((len(label), num_classes))
        logits = 2 * np.eye(num_classes)[label] + noise
        features = generator.standard_normal((len(label), 20)) + label[:, None]
        identity = table.select(["split", "dialogue_id", "utterance_id"]).replace_schema_metadata()
        identity = identity.append_column("features", features_column(features))
        identity = identity.append_column("logits", features_column(logits))
        return Artifact("teacher", "", identity, {}, {})

    def _write_sound(self, table: pa.Table) -> Artifact:
        """A tone for each label, in noise."""
        generator = np.random.default_rng(1)

        def clip(label: int) -> np.ndarray[Any, Any]:
            length = round(self._seconds * RATE * generator.uniform(2 / 3, 1))
            tone = np.sin(np.arange(length) * (0.05 * (1 + label)))
            noisy = 6000 * tone + 2000 * generator.standard_normal(length)
            return np.asarray(noisy.clip(-32768, 32767), np.int16)

        return self._written("audio_media", "waveform", (), table, clip)

    def _write_frames(self, table: pa.Table) -> Artifact:
        """A shade for each label, in noise."""
        generator = np.random.default_rng(2)
        noise = generator.integers(0, 60, self._frames, np.uint8)

        def clip(label: int) -> np.ndarray[Any, Any]:
            rolled = np.roll(noise, int(generator.integers(99)))
            return np.asarray(rolled + np.uint8(60 * label))

        return self._written("video_media", "frames", self._frames, table, clip)

    def _written(
        self,
        stage: str,
        kind: str,
        shape: tuple[int, ...],
        table: pa.Table,
        clip: Callable[[int], np.ndarray[Any, Any]],
    ) -> Artifact:
        path = self._folder / f"{stage}.bin"
        with ClipWriter(path, kind) as writer:
            for label in table["label"].to_pylist():
                writer.append(clip(label))
            where = writer.table(table.select(["dialogue_id", "utterance_id"]), shape)
        return Artifact(stage, "", where, {}, {}, media=str(path))
