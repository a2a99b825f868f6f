"""The one training loop. A stage only defines what a step is, by a `Task`.

Shapes: N utterances of a batch, H hidden_dim, C classes.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from magtkd.config import TrainingSection
from magtkd.errors import DivergedError
from magtkd.memory import MemoryPeak
from magtkd.metrics import Report, classification_metrics
from magtkd.schedules import SCHEDULES

__all__ = [
    "Outputs",
    "Report",
    "ReportCallback",
    "Session",
    "Task",
    "TrainResult",
    "derive_seed",
]

BatchT = TypeVar("BatchT")
SectionT = TypeVar("SectionT", bound=TrainingSection)

OPTIMIZERS = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}


ReportCallback = Callable[[Report], None]


@dataclass(frozen=True)
class Outputs:
    """A model's outputs for some utterances: `row` [N] of the table, `features` [N, H],
    `logits` [N, C]."""

    row: Tensor
    features: Tensor
    logits: Tensor


class Task(Protocol[BatchT]):
    """What a stage adds to the loop: a model, batches, a loss and outputs."""

    model: nn.Module
    num_items: int
    """What one pass over train counts in: utterances or conversations."""

    def batches(self, split: str, generator: torch.Generator | None) -> Iterable[BatchT]:
        """Batches of a split, shuffled by the generator; in a fixed order without one."""

    def loss(self, batch: BatchT, section: Any) -> Tensor:
        """The training loss of a batch, with the section's values of this epoch."""

    def num_utterances(self, batch: BatchT) -> int:
        """How many utterances a batch has."""

    def outputs(self, batch: BatchT) -> Outputs:
        """Features and logits of the batch's real utterances."""


@dataclass(frozen=True)
class TrainResult:
    """A trained stage: features [num_utterances, H] and logits [num_utterances, C] by row of the
    table, the weights of the chosen epoch, and the metrics."""

    features: np.ndarray
    logits: np.ndarray
    weights: bytes
    metrics: dict[str, Any]


@dataclass
class _Progress:
    """How far a session is; plain values only."""

    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    train_seconds: float = 0.0
    peak_memory: int = 0
    best_epoch: int = 0
    best_score: float = -math.inf
    reports: list[dict[str, Any]] = field(default_factory=list)


def derive_seed(seed: int, stage: str, epoch: int) -> int:
    """A seed of its own for each stage and epoch, so that an epoch repeats without those before
    it. Epoch 0 initialises the weights."""
    digest = hashlib.sha256(f"{seed}/{stage}/{epoch}".encode()).digest()
    return int.from_bytes(digest[:7], "big")


class Session(Generic[SectionT, BatchT]):
    """A stage in training: model, optimizer, data order; one epoch at a time.

    The same seed, data and number of threads give the same results bit for bit on a CPU, whether
    or not the session was restored from a checkpoint in between.

    Args:
        stage: its name, for seeds and messages.
        section: its configuration.
        seed: the configuration's seed.
        make_task: builds the task; called with the stage's random state in place.
        label: [num_utterances] label of each row of the table.
        split: [num_utterances] split of each row of the table.
        labels: names of the classes.
        device: where to compute; CUDA where there is one, by default.
    """

    def __init__(
        self,
        *,
        stage: str,
        section: SectionT,
        seed: int,
        make_task: Callable[[], Task[BatchT]],
        label: np.ndarray,
        split: np.ndarray,
        labels: Sequence[str],
        device: torch.device | None = None,
    ) -> None:
        started = time.perf_counter()
        self.stage, self.section, self.seed = stage, section, seed
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._label, self._split, self._labels = label, split, tuple(labels)
        with self._random(0), MemoryPeak(self.device) as peak:
            self.task = make_task()
        self.task.model.to(self.device)
        named = list(self.task.model.named_parameters())
        self._parameters = [p for _, p in named if p.requires_grad]
        self._frozen = {name for name, p in named if not p.requires_grad}
        self._optimizer = OPTIMIZERS[section.optimizer](
            self._parameters,
            lr=section.learning_rate,
            weight_decay=section.weight_decay,
            fused=True,
        )
        self._autocast = self.device.type == "cuda" and section.precision != "float32"
        self._scaler = torch.amp.GradScaler(
            self.device.type, enabled=self._autocast and section.precision == "float16"
        )
        self._best: dict[str, Tensor] = {}
        self._progress = _Progress(
            seconds=time.perf_counter() - started, peak_memory=peak.num_bytes
        )

    # --- training -----------------------------------------------------------------------------

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return self._progress.epoch

    @property
    def reports(self) -> list[dict[str, Any]]:
        """The reports of all epochs, those before a checkpoint included, as plain values."""
        return list(self._progress.reports)

    @property
    def seconds(self) -> float:
        """Seconds of work that are in this session, those before a checkpoint included."""
        return self._progress.seconds

    @property
    def is_done(self) -> bool:
        """Whether all epochs are done, or patience is at its end."""
        waited = self.epoch - self._progress.best_epoch
        patience = self.section.patience
        return self.epoch >= self.section.epochs or (patience is not None and waited >= patience)

    def advance(self) -> Report:
        """Train one epoch and evaluate on dev.

        Raises:
            DivergedError: a loss was not finite.
        """
        assert not self.is_done, f"{self.stage} is done"
        started = time.perf_counter()
        epoch = self.epoch + 1
        section = self.section.at_epoch(epoch)
        self._apply(section)
        steps_before = self._progress.step
        with self._random(epoch) as generator, MemoryPeak(self.device) as peak:
            train_loss = self._train_epoch(epoch, section, generator)
            self._progress.train_seconds += time.perf_counter() - started
            num_steps = self._progress.step - steps_before
            metrics = {"train/loss": train_loss} | self._evaluate(epoch, num_steps)
        report = Report(epoch, metrics)
        self._progress.epoch = epoch
        self._progress.reports.append({"epoch": epoch, "metrics": report.metrics})
        self._keep_best(report)
        self._progress.peak_memory = max(self._progress.peak_memory, peak.num_bytes)
        self._progress.seconds += time.perf_counter() - started
        return report

    def run(self, report: ReportCallback | None = None) -> TrainResult:
        """Train to the end, calling `report` after each epoch."""
        while not self.is_done:
            latest = self.advance()
            if report is not None:
                report(latest)
        return self.result()

    def _apply(self, section: TrainingSection) -> None:
        for module in self.task.model.modules():
            if isinstance(module, nn.Dropout):
                module.p = section.dropout
        for group in self._optimizer.param_groups:
            group["weight_decay"] = section.weight_decay

    def _train_epoch(
        self, epoch: int, section: TrainingSection, generator: torch.Generator
    ) -> float:
        self.task.model.train()
        batches = list(self.task.batches("train", generator))
        losses: list[Tensor] = []
        for start in range(0, len(batches), section.accumulation):
            group = batches[start : start + section.accumulation]
            self._set_learning_rate(section, math.ceil(len(batches) / section.accumulation))
            self._optimizer.zero_grad(set_to_none=True)
            for batch, share in zip(group, self._shares(group), strict=True):
                with self._mixed_precision():
                    loss = self.task.loss(batch, section)
                self._scaler.scale(loss * share).backward()  # type: ignore[no-untyped-call]
                losses.append(loss.detach())
            self._scaler.unscale_(self._optimizer)
            nn.utils.clip_grad_norm_(self._parameters, section.gradient_norm)
            self._scaler.step(self._optimizer)
            self._scaler.update()
            self._progress.step += 1
        # Checked once, at the end of the epoch: a check at each step would make a GPU wait.
        values = torch.stack(losses).float().cpu()
        bad = (~torch.isfinite(values)).nonzero()
        if len(bad):
            first = int(bad[0])
            step = first // section.accumulation + 1
            raise DivergedError(self.stage, epoch, step, float(values[first]))
        return float(values.mean())

    def _shares(self, group: Sequence[BatchT]) -> list[float]:
        """How much of a step each batch is: its part of the utterances, as in one large batch."""
        if len(group) == 1:
            return [1.0]  # counting makes a GPU wait
        counts = [self.task.num_utterances(batch) for batch in group]
        return [count / sum(counts) for count in counts]

    def _mixed_precision(self) -> torch.autocast:
        dtype = getattr(torch, self.section.precision)
        return torch.autocast(self.device.type, dtype=dtype, enabled=self._autocast)

    def _set_learning_rate(self, section: TrainingSection, num_batches: int) -> None:
        factor = SCHEDULES[section.schedule].factor(
            step=self._progress.step,
            num_steps=num_batches * section.epochs,
            num_items=self.task.num_items,
            section=section,
        )
        for group in self._optimizer.param_groups:
            group["lr"] = section.learning_rate * factor

    # --- evaluation ---------------------------------------------------------------------------

    def _predict(self, splits: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows, features and logits of the utterances of some splits."""
        self.task.model.eval()
        with torch.no_grad(), self._mixed_precision():
            parts = [
                self.task.outputs(batch)
                for split in splits
                for batch in self.task.batches(split, None)
            ]
        rows = torch.cat([part.row for part in parts]).cpu().numpy()
        features = torch.cat([part.features for part in parts]).float().cpu().numpy()
        logits = torch.cat([part.logits for part in parts]).float().cpu().numpy()
        return rows, features, logits

    def _evaluate(self, epoch: int, num_steps: int) -> dict[str, float]:
        rows, _, logits = self._predict(["dev"])
        label = self._label[rows]
        loss = float(F.cross_entropy(torch.from_numpy(logits), torch.from_numpy(label).long()))
        if not math.isfinite(loss):
            raise DivergedError(self.stage, epoch, num_steps, loss)
        scores = classification_metrics(label, logits.argmax(axis=1), self._labels)
        flat = {"dev/loss": loss}
        flat |= {f"dev/{name}": scores[name] for name in ("accuracy", "weighted_f1")}
        flat |= {f"dev/f1/{name}": entry["f1"] for name, entry in scores["per_class"].items()}
        return flat

    def _keep_best(self, report: Report) -> None:
        value = report.metrics[f"dev/{self.section.select}"]
        score = -value if self.section.select == "loss" else value
        if score > self._progress.best_score:
            self._progress.best_score, self._progress.best_epoch = score, report.epoch
            self._best = {}  # the last copy makes room for this one
            self._best = self._copied_weights()

    def _copied_weights(self) -> dict[str, Tensor]:
        """The weights as they are now; those that are not trained are not copied."""
        return {
            name: tensor.detach() if name in self._frozen else tensor.detach().clone()
            for name, tensor in self.task.model.state_dict().items()
        }

    def result(self) -> TrainResult:
        """Features, logits, weights and metrics of the epoch that dev chose."""
        assert self._best, f"{self.stage} was not trained"
        self._optimizer.zero_grad(set_to_none=True)  # gradients make room for the copy
        latest = self._copied_weights()
        self.task.model.load_state_dict(self._best)
        rows, features, logits = self._predict(["train", "dev", "test"])
        self.task.model.load_state_dict(latest)
        order = np.argsort(rows)
        assert np.array_equal(rows[order], np.arange(len(self._label))), "each utterance once"
        features, logits = features[order], logits[order]
        dev = self._split == "dev"
        metrics = {
            "epoch": self._progress.best_epoch,
            "seconds": self._progress.seconds,
            "samples_per_second": self._samples_per_second,
            "peak_memory": self._progress.peak_memory,
            "device": self.device.type,
            "reports": self._progress.reports,
            "dev": classification_metrics(
                self._label[dev], logits[dev].argmax(axis=1), self._labels
            ),
        }
        weights = {name: tensor.cpu().contiguous() for name, tensor in self._best.items()}
        return TrainResult(features, logits, save_tensors(weights), metrics)

    @property
    def _samples_per_second(self) -> float:
        """Utterances of train that went through training each second, evaluation left out."""
        num_samples = int((self._split == "train").sum()) * self._progress.epoch
        return num_samples / max(self._progress.train_seconds, 1e-9)

    # --- checkpoint ---------------------------------------------------------------------------

    def checkpoint(self) -> bytes:
        """The whole session as safetensors, its progress as JSON in the header."""
        tensors = {f"model/{k}": v for k, v in self.task.model.state_dict().items()}
        tensors |= {f"best/{k}": v for k, v in self._best.items() if k not in self._frozen}
        state = self._optimizer.state_dict()["state"]
        for index, values in state.items():
            tensors |= {f"optimizer/{index}/{k}": torch.as_tensor(v) for k, v in values.items()}
        progress = vars(self._progress) | {"scaler": self._scaler.state_dict()}
        if not self._best:
            progress["best_score"] = None
        copies = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        checkpoint: bytes = save_tensors(copies, metadata={"progress": json.dumps(progress)})
        return checkpoint

    def restore(self, checkpoint: bytes) -> None:
        """Continue from a checkpoint of the same stage, whose section may differ in values that
        leave shapes and data order alone."""
        header_size = int.from_bytes(checkpoint[:8], "little")
        header = json.loads(checkpoint[8 : 8 + header_size])
        progress = json.loads(header["__metadata__"]["progress"])
        tensors = load_tensors(checkpoint)
        groups: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "optimizer": {}}
        for name, tensor in tensors.items():
            group, _, rest = name.partition("/")
            groups[group][rest] = tensor
        self.task.model.load_state_dict(groups["model"])
        self._best = {name: tensor.to(self.device) for name, tensor in groups["best"].items()}
        if self._best:
            weights = self.task.model.state_dict()
            self._best |= {name: weights[name].detach() for name in self._frozen}
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in groups["optimizer"].items():
            index, _, key = name.partition("/")
            state.setdefault(int(index), {})[key] = tensor
        skeleton = self._optimizer.state_dict()
        self._optimizer.load_state_dict({**skeleton, "state": state})
        scaler = progress.pop("scaler")
        if scaler:
            self._scaler.load_state_dict(scaler)
        if progress["best_score"] is None:
            progress["best_score"] = -math.inf
        self._progress = _Progress(**progress)

    def _random(self, epoch: int) -> _RandomState:
        return _RandomState(derive_seed(self.seed, self.stage, epoch), self.device)


class _RandomState:
    """The global random state of one epoch, put back afterwards, and a generator for the order of
    the data: a worker holds several sessions, and none may depend on what another drew."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self._seed = seed
        self._numpy: Any = None
        devices = [device] if device.type == "cuda" else []
        self._fork = torch.random.fork_rng(devices=devices)

    def __enter__(self) -> torch.Generator:
        self._fork.__enter__()
        # Speech encoders mask by numpy's numbers (SpecAugment).
        self._numpy = np.random.get_state()
        np.random.seed(self._seed % 2**32)
        torch.manual_seed(self._seed)
        return torch.Generator().manual_seed(self._seed)

    def __exit__(self, *error: Any) -> None:
        self._fork.__exit__(*error)
        np.random.set_state(self._numpy)
