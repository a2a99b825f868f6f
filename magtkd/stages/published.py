"""A published fusion model instead of a trained one: what is checked, converted, evaluated.

Shapes: N utterances, C classes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor

from magtkd.config import FusionConfig
from magtkd.data import MODALITIES
from magtkd.errors import DataError
from magtkd.fusion import MAGT, SDT
from magtkd.fusion.published import magt as published_magt
from magtkd.fusion.published import sdt as published_sdt
from magtkd.fusion.published.checkpoint import labels_text, read_checkpoint
from magtkd.metrics import classification_metrics, with_label
from magtkd.stages.fusion import make_task
from magtkd.stages.inputs import Inputs
from magtkd.training import TrainResult, dev_metrics, predict_table

__all__ = ["evaluate_published", "read_published"]

Warn = Callable[[str], None]


def read_published(path: Path, section: FusionConfig) -> MAGT | SDT:
    """The published model in a file, if it has the configuration's sizes.

    Raises:
        DataError: it is no such model, or of other sizes.
    """
    state = read_checkpoint(path)
    try:
        if section.model == "sdt":
            sizes = published_sdt.published_sizes(state)
            _require_sizes(path, {name: sizes[name] for name in ("hidden_dim", "depth")}, section)
            _require_sizes(path, {"gate": sizes["gate"]}, section)
            return SDT.from_published(state, num_heads=section.num_heads)
        sizes = published_magt.published_sizes(state)
        _require_sizes(path, {name: sizes[name] for name in ("hidden_dim", "depth")}, section)
        _require_sizes(path, {"gate": "learned", "anchor": True}, section)
        return MAGT.from_published(state, num_heads=section.num_heads)
    except (ValueError, IndexError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: {error}") from None


def _require_sizes(path: Path, there: Mapping[str, Any], section: FusionConfig) -> None:
    """Compared before a model is built: a small file may claim sizes that fill the memory."""
    differing = [name for name, value in there.items() if getattr(section, name) != value]
    if differing:
        theirs = ", ".join(f"{name} {there[name]}" for name in differing)
        ours = ", ".join(f"{name} {getattr(section, name)}" for name in differing)
        way_out = " ".join(f"fusion.{name}={str(there[name]).lower()}" for name in differing)
        raise DataError(f"{path}: the checkpoint has {theirs}; fusion has {ours}; set {way_out}")


def evaluate_published(
    path: Path,
    model: MAGT | SDT,
    section: FusionConfig,
    inputs: Inputs,
    classes: Sequence[str] | None,
    warn: Warn,
) -> TrainResult:
    """What a stage that trained nothing would have given: epoch 0, its report on dev, and features
    and logits of all utterances.

    Args:
        path: where the model was read, for messages.
        model: the published model.
        section: the fusion stage's section.
        inputs: what the stage is given.
        classes: the model's classes in order; None for the corpus's own order.
        warn: called with one line for each warning.

    Raises:
        DataError: its modalities, widths, classes or speakers do not fit the corpus.
    """
    started = time.perf_counter()
    task = make_task(section, inputs, torch.device("cpu"))
    _require_widths(path, model, task.widths)
    state = _with_labels(path, model.state_dict(), inputs.labels, classes)
    state = _with_speakers(path, state, inputs.metadata.num_speakers, warn)
    task.model.model.load_state_dict(state)
    weights = {name: tensor.contiguous() for name, tensor in task.model.state_dict().items()}
    features, logits = predict_table(task, len(inputs.label))
    dev = inputs.split == "dev"
    label, dev_logits = with_label(inputs.label[dev], logits[dev])
    metrics = {
        "epoch": 0,
        "seconds": time.perf_counter() - started,
        "reports": [{"epoch": 0, "metrics": dev_metrics(label, dev_logits, inputs.labels)}],
        "dev": classification_metrics(label, dev_logits.argmax(axis=1), inputs.labels),
    }
    saved = save_tensors(weights, metadata={"labels": labels_text(inputs.labels)})
    return TrainResult(features, logits, saved, metrics)


def _require_widths(path: Path, model: MAGT | SDT, widths: Mapping[str, int]) -> None:
    theirs = model.widths if isinstance(model, SDT) else dict.fromkeys(MODALITIES, model.hidden_dim)
    if theirs != dict(widths):
        raise DataError(
            f"{path}: the checkpoint reads {_named(theirs)}; the configuration gives it "
            f"{_named(widths)}; fuse all modalities, with features of these widths"
        )


def _named(widths: Mapping[str, int]) -> str:
    return ", ".join(f"{modality} {width} wide" for modality, width in widths.items())


def _with_labels(
    path: Path, state: Mapping[str, Tensor], labels: Sequence[str], classes: Sequence[str] | None
) -> dict[str, Tensor]:
    """The state with its classes in the order of the corpus's labels."""
    num_classes = next(
        tensor.shape[-1] for name, tensor in state.items() if name.endswith("head.bias")
    )
    if classes is not None and sorted(classes) != sorted(labels):
        raise DataError(
            f"{path}: --labels has {', '.join(classes)}; the corpus has {', '.join(labels)}; name "
            "the corpus's labels in the checkpoint's order"
        )
    if num_classes != len(labels):
        raise DataError(
            f"{path}: the checkpoint has {num_classes} classes; the corpus has {len(labels)}: "
            f"{', '.join(labels)}; use the corpus that it was trained on"
        )
    order = torch.tensor([list(classes or labels).index(label) for label in labels])
    dims = {"head.weight": -2, "head.bias": -1}
    return {
        name: tensor.index_select(dims[kind], order)
        if (kind := ".".join(name.split(".")[-2:])) in dims
        else tensor
        for name, tensor in state.items()
    }


def _with_speakers(
    path: Path, state: Mapping[str, Tensor], num_speakers: int, warn: Warn
) -> dict[str, Tensor]:
    """The state with as many speakers as the corpus has."""
    name = "speaker_embedding.weight"
    embedding = state[name]
    num_there = len(embedding) - 1
    if num_there < num_speakers:
        raise DataError(
            f"{path}: the checkpoint knows {num_there} speakers; the corpus has {num_speakers}; "
            "use the table of the file it was trained on, with data.speakers=published"
        )
    if num_there > num_speakers:
        warn(
            f"{path}: the checkpoint knows {num_there} speakers; the corpus has {num_speakers}: "
            f"the first {num_speakers} are kept"
        )
    # The last row is padding's, which no utterance sees.
    return {**state, name: torch.cat([embedding[:num_speakers], embedding[-1:]])}
