"""What `gpu.py` measures at full size: memory, speed, and what batches keep waiting.

On a CPU the same is done at a small size, where the figures mean nothing.
"""

from __future__ import annotations

import gc
import re
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import encoder_memory
import torch
from fusion_epoch import OURS, PEER, SECTION, VARIANTS, Trainer
from gpu_checks import has_peft, stage_of, values_of
from gpu_inputs import Inputs, corpus, first_rows, the_device
from gpu_rows import Row, row, skipped
from torch.utils.flop_counter import FlopCounterMode

from magtkd.data import MODALITIES, list_matrix
from magtkd.data.conversations import Conversations
from magtkd.training import Session

__all__ = ["documented", "fusion_session", "memory", "peak_flops", "speed", "steps", "waiting"]

ESTIMATES = Path(__file__).resolve().parent.parent / "docs" / "encoders.md"
BYTES_TRAINED = 20
"""Of a weight that AdamW trains, as `docs/encoders.md` counts them."""
LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "max_position_embeddings": 514,
}
FULL_SIZE: dict[str, tuple[str, dict[str, Any], tuple[int, ...]]] = {
    "roberta-large": ("roberta", LARGE, ()),
    "data2vec-audio-base": ("data2vec-audio", {}, ()),
    "timesformer-base": ("timesformer", {}, (8, 224, 224, 3)),
    "videomae-base": ("videomae", {}, (16, 224, 224, 3)),
}
"""Kind, sizes and shape of a clip of the encoders in `docs/encoders.md`."""

# Dense products, TFLOP/s, by the makers' data sheets: float32 without TF32, and half precision.
# The first name that is part of the device's counts.
PEAKS = {
    "H100 PCIe": (51.2, 756.0),
    "H100 NVL": (60.0, 835.0),
    "H100": (67.0, 989.0),
    "H200": (67.0, 989.0),
    "GH200": (67.0, 989.0),
    "B200": (75.0, 2250.0),
    "A100": (19.5, 312.0),
    "L40S": (91.6, 362.0),
    "L4": (30.3, 121.0),
    "A10": (31.2, 125.0),
    "V100": (15.7, 125.0),
    "T4": (8.1, 65.0),
    "RTX 4090": (82.6, 165.2),
    "RTX 3090": (35.6, 71.0),
}


def peak_flops(name: str, precision: str) -> float | None:
    """FLOP/s that a device can reach by its data sheet; None where it is not known."""
    words = f" {name.replace('-', ' ')} "
    for known, (single, half) in PEAKS.items():
        if f" {known} " in words:
            return 1e12 * (single if precision == "float32" else half)
    return None


def _is_cuda() -> bool:
    return the_device().type == "cuda"


# --- memory -----------------------------------------------------------------------------------


def memory(folder: Path, encoder: str, train: str = "full") -> Iterator[Row]:
    """What a stage takes at most, from its start to its result, against 20 bytes a weight that is
    trained and 4 of one that is not. Clips are few and checkpointed, to keep activations small."""
    kind, sizes, frames = FULL_SIZE[encoder]
    name = f"{encoder if _is_cuda() else f'small {kind}'}, train {train}"
    estimate = documented(encoder, train)
    if _is_cuda() and torch.cuda.mem_get_info()[0] < 1.5 * estimate:
        yield skipped("memory", name, f"takes {estimate / 1e9:.1f} GB and more")
        return
    values = values_of(kind, folder, sizes if _is_cuda() else None)
    values |= {"epochs": 3, "batch_size": 1, "accumulation": 1}
    if train == "full":
        values["gradient_checkpointing"] = True
    else:
        values |= {"train": train, "prompt_length": 0}
    data = first_rows(corpus(), 2)
    inputs = (
        Inputs(folder, data, seconds=1.0, frames=frames) if _is_cuda() else Inputs(folder, data)
    )
    session = inputs.session(stage_of(kind), values, the_device())
    peak = _in_use(session)
    while not session.is_done:
        session.advance()
        peak = max(peak, _in_use(session))
    session.result()
    peak = max(peak, _in_use(session))
    parameters = list(session.task.model.parameters())
    counted = sum(p.numel() * (BYTES_TRAINED if p.requires_grad else 4) for p in parameters)
    expected, is_right = f"{counted / 1e9:.3g} GB by weights", 0.95 <= peak / counted <= 1.35
    if _is_cuda():
        expected += f", {estimate / 1e9:.1f} GB in docs/encoders.md"
        is_right = is_right and 0.85 <= counted / estimate <= 1.15
    measured = f"{peak / 1e9:.3g} GB, {peak / counted:.2f} times"
    yield row("memory", name, expected, measured, is_right)


def documented(encoder: str, train: str) -> float:
    """The estimate in `docs/encoders.md`, in bytes."""
    found = re.search(
        rf"^\| {encoder} \| [\d.]+ M \| ([\d.]+) GB \| ([\d.]+) GB \|$",
        ESTIMATES.read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert found is not None, f"{ESTIMATES} has no line for {encoder}"
    return 1e9 * float(found[1 if train == "full" else 2])


def _in_use(session: Session[Any, Any]) -> int:
    """The most that was allocated on CUDA since the session looked last; on a CPU, whose processes
    hold much else, what the session's tensors take now."""
    if _is_cuda():
        return torch.cuda.max_memory_allocated()
    parameters = list(session.task.model.parameters())
    held = [*parameters, *(p.grad for p in parameters if p.grad is not None)]
    for state in session._optimizer.state.values():
        held += list(state.values())
    held += [value for name, value in session._best.items() if name not in session._frozen]
    return sum(tensor.numel() * tensor.element_size() for tensor in held)


def steps(folder: Path, encoder: str) -> Iterator[Row]:
    """What `encoder_memory.py` measures, at full size: as it is, with checkpoints, by LoRA."""
    names = [f"{encoder}, {option}, a step" for option in encoder_memory.OPTIONS]
    if not _is_cuda():
        yield from (skipped("memory", name, "full size, for a GPU") for name in names)
        return
    whole = 0.0
    for name, option in zip(names, encoder_memory.OPTIONS, strict=True):
        if option.startswith("lora") and not has_peft():
            yield skipped("memory", name, "no peft")
            continue
        gc.collect()
        figures = encoder_memory.measure(encoder, option, 4)
        peak = figures["peak_gib"]
        whole = whole or peak
        measured = f"{peak:.2f} GiB, {figures['samples_per_second']:.1f} samples/s"
        expected = "bfloat16, batch 4" if peak == whole else f"less than {whole:.2f} GiB"
        yield row("memory", name, expected, measured, peak < whole or option == "none")


# --- speed ------------------------------------------------------------------------------------


def speed(folder: Path, precision: str) -> Iterator[Row]:
    """An epoch of MAGT against the published implementation's arithmetic, and the share of the
    device's peak that it reaches; as many conversations as MELD's train has, and of their lengths.
    Without dropout, on a CPU, both were compared when they were made (`fusion_epoch.py`)."""
    device = the_device()
    sizes = {"num_dialogues": 1484, "mean_length": 9.6, "width": SECTION.hidden_dim}
    data = corpus(**(sizes if _is_cuda() else {"num_dialogues": 30, "width": 32}))
    table = data.table
    features = {modality: list_matrix(table, f"{modality}_features") for modality in MODALITIES}
    conversations = Conversations(table, features)
    options: dict[str, Any] = {
        "device": device,
        "precision": getattr(torch, precision),
        "hidden_dim": features["text"].shape[1],
    }
    trainers = {name: Trainer(VARIANTS[name], conversations, **options) for name in (PEER, OURS)}
    flops = {}
    for name, trainer in trainers.items():
        with FlopCounterMode(display=False) as counter:
            trainer.epoch()
        flops[name] = counter.get_total_flops()
        trainer.epoch()  # every shape has been seen now
    seconds: dict[str, list[float]] = {name: [] for name in trainers}
    ends = time.perf_counter() + 30
    while len(seconds[OURS]) < 3 and time.perf_counter() < ends:
        for name, trainer in trainers.items():
            seconds[name].append(trainer.epoch()["seconds"])
    peer, ours = (statistics.median(seconds[name]) for name in (PEER, OURS))
    size = f"{conversations.num_conversations('train')} conversations, {options['hidden_dim']} wide"
    measured = f"{peer:.3f} s, {ours:.3f} s: {peer / ours:.2f} times faster"
    expected = f"published / ours, {size}"
    yield row("speed", f"MAGT, {precision}", expected, measured, min(peer, ours) > 0)
    peak = peak_flops(torch.cuda.get_device_name(), precision) if _is_cuda() else None
    for name, taken in ((PEER, peer), (OURS, ours)):
        rate = flops[name] / taken
        share = f"{100 * rate / peak:.1f} % of {peak / 1e12:g}" if peak else "unknown peak"
        measured = f"{flops[name] / 1e12:.3g} TFLOP at {rate / 1e12:.3g} TFLOP/s, {share}"
        is_right = rate > 0 and (peak is None or rate < peak)
        yield row("speed", f"{name}, {precision}", "a share below 1", measured, is_right)


# --- waiting ----------------------------------------------------------------------------------


def waiting(folder: Path, kind: str) -> Iterator[Row]:
    """The share of an epoch in which the loop waits for clips, or for batches of conversations."""
    session, what = fusion_session(folder) if kind == "fusion" else _clip_session(folder, kind)
    waited = 0.0

    def timed(work: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            nonlocal waited
            started = time.perf_counter()
            result = work(*arguments)
            waited += time.perf_counter() - started
            return result

        return call

    task = session.task
    if kind == "fusion":
        batches = task.batches
        task.batches = timed(lambda *arguments: list(batches(*arguments)))  # type: ignore[method-assign]
    else:
        loader: Any = task
        loader._loader.load = timed(loader._loader.load)
    session.advance()
    waited, started = 0.0, time.perf_counter()
    session.advance()
    seconds = time.perf_counter() - started
    measured = f"{100 * waited / seconds:.1f} % of {seconds:.2f} s"
    yield row("waiting", what, "a share of an epoch", measured, 0 <= waited <= seconds)


def fusion_session(folder: Path) -> tuple[Session[Any, Any], str]:
    width = SECTION.hidden_dim if _is_cuda() else 32
    sizes: dict[str, Any] = {"num_dialogues": 1484, "mean_length": 9.6} if _is_cuda() else {}
    values: dict[str, Any] = {"recipe": "published_meld", "inputs": "table"}
    if not _is_cuda():
        values = {"inputs": "table", "hidden_dim": width, "num_heads": 4}
    inputs = Inputs(folder, corpus(width=width, **sizes))
    return inputs.session("fusion", values, the_device()), "fusion, batches to the device"


def _clip_session(folder: Path, kind: str) -> tuple[Session[Any, Any], str]:
    frames = (8, 224, 224, 3) if _is_cuda() else (4, 16, 16, 3)
    values = values_of(kind, folder, {} if _is_cuda() else None)
    values |= {"epochs": 2, "batch_size": 4, "accumulation": 1, "learning_rate": 1e-5}
    values |= {"precision": "bfloat16"}
    data = first_rows(corpus(num_dialogues=60), 96 if _is_cuda() else 24)
    inputs = Inputs(folder, data, seconds=3.0 if _is_cuda() else 0.3, frames=frames)
    session = inputs.session(stage_of(kind), values, the_device())
    return session, f"{kind}, {'bfloat16' if _is_cuda() else 'float32'}, clips"
