"""MELD with MiniLM as the teacher, fine-tuned with prompts of several lengths: weighted F1, the
speed of training, and how far that is from what the device can multiply.

    python benchmarks/meld_prompts.py --data MELD_FOLDER
    python benchmarks/meld_prompts.py --data MELD_FOLDER --conversations 40 --epochs 1 --prompts 0 4

Needs `pip install magtkd[offline]`. `--conversations` takes that many of train's conversations,
drawn at random; dev and test stay whole. 0 takes all of them: two epochs
of each length are about an hour on two cores.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import time
from pathlib import Path
from typing import Any

import common
import numpy as np
from meld import test_scores

from magtkd.config import load_config
from magtkd.data import read_path, write_parquet
from magtkd.pipeline import run_chain
from magtkd.store import Store


def write_subset(data: str, num_conversations: int, path: Path) -> dict[str, int]:
    """A table with some of train's conversations and all of dev and test; its counts by split."""
    table = read_path(data).table
    split, dialogue = (np.array(table[name].to_pylist()) for name in ("split", "dialogue_id"))
    names = np.unique(dialogue[split == "train"])
    kept = np.random.default_rng(0).permutation(names)[: num_conversations or len(names)]
    table = table.filter((split != "train") | np.isin(dialogue, kept))
    write_parquet(table, path)
    counts = np.unique(np.array(table["split"].to_pylist()), return_counts=True)
    return {str(name): int(count) for name, count in zip(*counts, strict=True)}


def measure_limit(seconds: float = 3.0) -> dict[str, Any]:
    """What the device multiplies in a second: matrices of the size of MiniLM's inner layer."""
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    left = torch.randn(32 * 96, 384, device=device, dtype=dtype)
    right = torch.randn(384, 1536, device=device, dtype=dtype)
    num_flops, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        for _ in range(10):
            left @ right
        if device.type == "cuda":
            torch.cuda.synchronize()
        num_flops += 10 * 2 * left.shape[0] * left.shape[1] * right.shape[1]
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    return {"device": name, "flops": num_flops / (time.perf_counter() - started)}


def train(data: str, prompt_length: int, epochs: int) -> dict[str, Any]:
    """One configuration from nothing: its scores, and the teacher's speed."""
    config = load_config(
        common.EXPERIMENTS / "meld_minilm.yaml",
        [
            f"data.path={data}",
            f"teacher.prompt_length={prompt_length}",
            f"resources.teacher.cpu={os.cpu_count()}",  # the limit is that of all cores, too
            *([f"teacher.epochs={epochs}"] if epochs else []),
        ],
    )
    with common.scratch() as storage:
        artifacts = run_chain(config, Store(storage))
        stages = {stage: artifact.key for stage, artifact in artifacts.items()}
        scores = test_scores(str(storage), stages)
    metrics = artifacts["teacher"].metrics
    return {
        "seconds": metrics["seconds"],
        "utterances_per_second": metrics["samples_per_second"],
        "peak_memory_mb": metrics["peak_memory"] / 2**20,
        "megaflops_an_utterance": flops_an_utterance(config, artifacts["data"]) / 1e6,
        "dev": artifacts["fusion"].metrics["dev"]["weighted_f1"],
        "teacher_dev": metrics["dev"]["weighted_f1"],
        "test": scores["test"]["weighted_f1"],
        "majority_accuracy": scores["majority_accuracy"],
    }


def flops_an_utterance(config: Any, data: Any) -> float:
    """Multiplications and additions that training on one utterance takes in the encoder's linear
    layers: six for each of their weights and each token, padding left out."""
    from magtkd.pipeline import CoreTrainer

    task = CoreTrainer().open_session("teacher", config, {"data": data}).task
    masks = [batch.attention_mask for batch in task.batches("train", None)]
    num_tokens: float = sum(int(mask.sum()) for mask in masks) / sum(map(len, masks))
    named = task.model.named_parameters()
    linear: int = sum(p.numel() for name, p in named if ".layer." in name and p.ndim == 2)
    prompt_length: int = config.teacher.prompt_length
    return 6.0 * linear * (num_tokens + prompt_length)


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--data", default="", help="the folder of MELD's three CSV files")
    parser.add_argument("--conversations", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=0, help="of the teacher; 0 for the file's")
    parser.add_argument("--prompts", type=int, nargs="+", default=[0, 4, 16])
    options = parser.parse_args()
    if options.child:
        child = json.loads(options.child)
        with contextlib.redirect_stdout(io.StringIO()):
            answer = train(**child) if child else measure_limit()
        print(json.dumps(answer))
        return
    if not options.data:
        parser.error("--data: name the folder of MELD's three CSV files")
    result: dict[str, Any] = {"machine": common.machine(), "prompts": {}}
    with common.scratch() as folder:
        data = str(folder / "meld.parquet")
        result["utterances"] = write_subset(options.data, options.conversations, Path(data))
        result["limit"] = common.in_process(__file__, {})
        for length in options.prompts:
            child = {"data": data, "prompt_length": length, "epochs": options.epochs}
            result["prompts"][length] = common.in_process(__file__, child)
    limit = result["limit"]["flops"]
    rows = []
    for length, measured in result["prompts"].items():
        speed = measured["utterances_per_second"]
        measured["share_of_limit"] = speed * measured["megaflops_an_utterance"] * 1e6 / limit
        rows.append(
            [
                length,
                *(f"{100 * measured[name]:.1f}" for name in ("teacher_dev", "dev", "test")),
                speed,
                f"{100 * measured['share_of_limit']:.0f} %",
                f"{measured['peak_memory_mb']:.0f}",
            ]
        )
    columns = [
        "prompt length",
        "teacher dev wF1",
        "dev wF1",
        "test wF1",
        "utterances/s",
        "of the limit",
        "peak MB",
    ]
    counts = result["utterances"]
    title = f"MELD, MiniLM ({counts['train']} of train, {result['limit']['device']})"
    common.publish(title, result, columns, rows, options.out)


if __name__ == "__main__":
    main()
