"""The fusion stage's training epoch against the published implementation's arithmetic.

At the published size: H = 768, 8 heads, depth 1, 16 conversations a batch, of MELD's lengths.

The peer pads random batches to their longest conversation, runs one module for each encoder, and
calls the shared text encoder three times. The variants between it and ours take over one change
after the other. Features are random numbers: time does not depend on them.

    python benchmarks/fusion_epoch.py --data MELD_FOLDER
    python benchmarks/fusion_epoch.py --data MELD_FOLDER --conversations 96 --rounds 2
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from fusion_peer import PeerMAGT
from torch import Tensor, nn

from magtkd.config import Config, FusionConfig, SyntheticConfig
from magtkd.data import MODALITIES, make_corpus, make_synthetic, prepare, read_path
from magtkd.data.columns import features_column
from magtkd.data.conversations import Batch, Conversations
from magtkd.fusion import MAGT
from magtkd.fusion.dropout import Dropout
from magtkd.models import MODELS

TARGET = 2.0
PUBLISHED_CONVERSATIONS = 1039
SECTION = FusionConfig(recipe="published_meld")


@dataclass(frozen=True)
class Variant:
    """What of our changes a variant has."""

    by_length: bool = False
    cheap_dropout: bool = False
    fused_optimizer: bool = False
    stacked: bool = False


VARIANTS = {
    "published arithmetic": Variant(),
    "+ batches of like lengths": Variant(by_length=True),
    "+ cheap dropout": Variant(by_length=True, cheap_dropout=True),
    "+ fused optimizer": Variant(by_length=True, cheap_dropout=True, fused_optimizer=True),
    "ours: + stacked encoders": Variant(
        by_length=True, cheap_dropout=True, fused_optimizer=True, stacked=True
    ),
}
PEER, *_, OURS = VARIANTS


# --- conversations ----------------------------------------------------------------------------


def corpus_table(data: Path | None, num_conversations: int | None) -> pa.Table:
    """Train conversations, drawn without replacement, and one for dev, with random features."""
    table = (
        read_path(data).table
        if data is not None
        else make_synthetic(SyntheticConfig(num_dialogues=1400, mean_length=9.6))
    )
    table = table.filter(pc.equal(table["split"], "train"))
    dialogues = np.array(sorted(set(table["dialogue_id"].to_pylist())))
    number = min(num_conversations or PUBLISHED_CONVERSATIONS, len(dialogues))
    drawn = np.random.default_rng(0).choice(dialogues, number, replace=False)
    table = table.filter(pc.is_in(table["dialogue_id"], value_set=pa.array(drawn)))
    split = pc.if_else(pc.equal(table["dialogue_id"], drawn[0]), "dev", "train")
    columns = {name: table[name] for name in table.column_names if not name.endswith("_features")}
    columns["split"] = split
    generator = np.random.default_rng(1)
    for modality in MODALITIES:
        features = generator.standard_normal((len(table), SECTION.hidden_dim), dtype=np.float32)
        columns[f"{modality}_features"] = features_column(features)
    config = Config().data
    return prepare(make_corpus(pa.table(columns), "benchmark"), config, seed=0)


def random_batches(conversations: Conversations, generator: torch.Generator) -> Iterator[Batch]:
    """Conversations in random order, each batch padded to its longest."""
    rows, lengths = conversations._rows["train"], conversations._lengths["train"]
    order = torch.randperm(len(lengths), generator=generator).numpy()
    for start in range(0, len(order), SECTION.batch_size):
        group = order[start : start + SECTION.batch_size]
        yield conversations._batch(rows[group, : lengths[group].max()])


# --- training ---------------------------------------------------------------------------------


class Trainer:
    """A variant that trains one epoch after another.

    Args:
        variant: what it has of our changes.
        conversations: what it trains on.
        device: where it computes.
        precision: of the products, by autocast.
        hidden_dim: width of the features and of the model.
    """

    def __init__(
        self,
        variant: Variant,
        conversations: Conversations,
        *,
        device: torch.device | None = None,
        precision: torch.dtype = torch.float32,
        hidden_dim: int = SECTION.hidden_dim,
    ) -> None:
        self._variant, self._conversations = variant, conversations
        self._device, self._precision = device or torch.device("cpu"), precision
        torch.manual_seed(0)
        sizes: dict[str, Any] = {
            "hidden_dim": hidden_dim,
            "num_heads": SECTION.num_heads,
            "num_classes": conversations.num_classes,
            "num_speakers": conversations.num_speakers,
            "dropout": SECTION.dropout,
        }
        ours = MAGT(depth=1, **sizes)
        self.model: nn.Module = ours
        if not variant.stacked:
            make_dropout = Dropout if variant.cheap_dropout else nn.Dropout
            self.model = PeerMAGT(make_dropout=make_dropout, **sizes)
            self.model.load_state_dict(ours.to_published())
            _require_same(ours, self.model, next(self._conversations.batches("dev", 1, None)))
        self.model.to(self._device)
        self._optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=SECTION.learning_rate,
            weight_decay=SECTION.weight_decay,
            fused=variant.fused_optimizer or None,
        )
        self._generator = torch.Generator().manual_seed(0)
        # The optimizer's state is made at its first step.
        self._step(next(self.batches()).to(self._device))

    def batches(self) -> Iterator[Batch]:
        """An epoch's batches."""
        if self._variant.by_length:
            return self._conversations.batches("train", SECTION.batch_size, self._generator)
        return random_batches(self._conversations, self._generator)

    def epoch(self) -> dict[str, Any]:
        """Train one epoch; its seconds, and the share of positions that were padding."""
        batches = [batch.to(self._device) for batch in self.batches()]
        self._wait()
        started, cpu_started = time.perf_counter(), time.process_time()
        for batch in batches:
            self._step(batch)
        self._wait()
        seconds = time.perf_counter() - started
        cpu_seconds = time.process_time() - cpu_started
        num_real = sum(int(batch.mask.sum()) for batch in batches)
        num_positions = sum(batch.mask.numel() for batch in batches)
        padding = 1 - num_real / num_positions
        return {"seconds": seconds, "cpu_seconds": cpu_seconds, "padding": padding}

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def _step(self, batch: Batch) -> None:
        self.model.train()
        is_half = self._precision != torch.float32
        with torch.autocast(self._device.type, dtype=self._precision, enabled=is_half):
            loss = batch_loss(self.model, batch)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), SECTION.gradient_norm)
        self._optimizer.step()


def _require_same(ours: nn.Module, peer: nn.Module, batch: Batch) -> None:
    """Without dropout both give the same loss and the same gradients."""
    values = []
    for model in (ours.eval(), peer.eval()):
        loss = batch_loss(model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        gradients = [p.grad.square().sum() for p in model.parameters() if p.grad is not None]
        values.append((loss.detach(), torch.stack(gradients).sum().sqrt()))
        model.zero_grad(set_to_none=True)
    torch.testing.assert_close(values[0], values[1], rtol=1e-5, atol=1e-5)


def batch_loss(model: nn.Module, batch: Batch) -> Tensor:
    """MAGT's published loss for MELD."""
    features = batch.features
    output = model(
        features["text"], features["audio"], features["video"], batch.mask, batch.speaker
    )
    return MODELS[SECTION.model].loss(output, batch.mask, batch.label, SECTION, None)


# --- where the time goes ----------------------------------------------------------------------


def shares(trainer: Trainer) -> dict[str, float]:
    """The share of an epoch's operations that each part takes, by torch's profiler."""
    with torch.profiler.profile(record_shapes=True) as profiler:
        trainer.epoch()
    seconds = dict.fromkeys(("linear", "attention", "optimizer", "dropout", "other"), 0.0)
    for event in profiler.key_averages(group_by_input_shape=True):
        seconds[part_of(event.key, event.input_shapes)] += event.self_cpu_time_total / 1e6
    total = sum(seconds.values())
    return {part: value / total for part, value in seconds.items()}


def part_of(name: str, shapes: list[list[int]]) -> str:
    """The part of a step that an operation belongs to."""
    if "adam" in name.lower() or name.startswith(("aten::_foreach", "Optimizer")):
        return "optimizer"
    if name in {"aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"}:
        # Stacked linear maps are batches of at most 6 products, attention of one for each head.
        num_products = next((shape[0] for shape in shapes if len(shape) == 3), 1)
        return "attention" if num_products > len(MODALITIES) ** 2 else "linear"
    if "softmax" in name:
        return "attention"
    return "dropout" if "random" in name or "bernoulli" in name or "dropout" in name else "other"


def main() -> None:
    import common  # which loads the search; `gpu_sizes.py` uses the rest without it

    parser = common.arguments(__doc__)
    parser.add_argument("--data", type=Path, metavar="DIR", help="MELD's three CSV files")
    parser.add_argument(
        "--conversations", type=int, default=128, help="drawn from MELD's 1,039; 1040 takes all"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    result: dict[str, Any] = {"machine": common.machine(), "threads": options.threads}
    table = corpus_table(options.data, options.conversations)
    features = {
        modality: np.stack(table[f"{modality}_features"].to_numpy(zero_copy_only=False))
        for modality in MODALITIES
    }
    conversations = Conversations(table, features)
    result["conversations"] = conversations.num_conversations("train")
    result["utterances"] = conversations.num_utterances("train")
    trainers = {name: Trainer(variant, conversations) for name, variant in VARIANTS.items()}
    rounds = common.alternate(
        {name: trainer.epoch for name, trainer in trainers.items()}, options.rounds
    )
    result["rounds"] = rounds
    result["ratios"] = {name: common.median_ratio(rounds, PEER, name) for name in VARIANTS}
    # Of processor time, which other work on the machine disturbs less.
    result["cpu_ratios"] = {
        name: float(
            np.median([one[PEER]["cpu_seconds"] / one[name]["cpu_seconds"] for one in rounds])
        )
        for name in VARIANTS
    }
    result["shares"] = {name: shares(trainers[name]) for name in (PEER, OURS)}
    result["target"] = TARGET
    rows = [
        [
            name,
            common.median_seconds(rounds, name),
            common.median_seconds(rounds, name) * PUBLISHED_CONVERSATIONS / result["conversations"],
            f"{100 * np.mean([one[name]['padding'] for one in rounds]):.0f} %",
            result["ratios"][name],
            result["cpu_ratios"][name],
            ", ".join(f"{part} {100 * share:.0f}" for part, share in result["shares"][name].items())
            if name in result["shares"]
            else "",
        ]
        for name in VARIANTS
    ]
    columns = [
        "variant",
        "seconds",
        "of 1,039",
        "padding",
        "times faster",
        "CPU",
        "% of operations",
    ]
    common.publish("fusion epoch", result, columns, rows, options.out)


if __name__ == "__main__":
    main()
