"""The one training loop.

Shapes: H hidden_dim, C classes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from magtkd.config import TrainingSection
from magtkd.errors import DivergedError
from magtkd.memory import MemoryPeak, check_device_memory
from magtkd.metrics import Report, classification_metrics, with_label
from magtkd.schedules import SCHEDULES
from magtkd.training.checkpoint import Checkpoint, Progress
from magtkd.training.evaluation import dev_metrics, predict, predict_table
from magtkd.training.random_state import RandomState, derive_seed
from magtkd.training.task import BatchT, Task

__all__ = ["ReportCallback", "Session", "TrainResult"]

SectionT = TypeVar("SectionT", bound=TrainingSection)

OPTIMIZERS = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}

ReportCallback = Callable[[Report], None]


@dataclass(frozen=True)
class TrainResult:
    """A trained stage: features [num_utterances, H] and logits [num_utterances, C] by row of the
    table, the weights of the chosen epoch, and the metrics."""

    features: np.ndarray
    logits: np.ndarray
    weights: bytes
    metrics: dict[str, Any]


class Session(Generic[SectionT, BatchT]):
    """A stage in training: model, optimizer, data order; one epoch at a time.

    The same seed, data and number of threads give the same results bit for bit on a CPU, whether
    or not the session was restored from a checkpoint in between.

    Args:
        stage: its name, for seeds and messages.
        section: its configuration.
        seed: the configuration's seed.
        make_task: builds the task; called with the stage's random state in place.
        label: [num_utterances] label of each row of the table; negative where there is none.
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
        named = list(self.task.model.named_parameters())
        self._parameters = [p for _, p in named if p.requires_grad]
        self._frozen = {name for name, p in named if not p.requires_grad}
        if self.device.type == "cuda":
            num_trained = sum(p.numel() for p in self._parameters)
            num_frozen = sum(p.numel() for _, p in named) - num_trained
            memory = torch.cuda.get_device_properties(self.device).total_memory
            check_device_memory(stage, section, num_trained, num_frozen, memory)
        self.task.model.to(self.device)
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
        self._progress = Progress(seconds=time.perf_counter() - started, peak_memory=peak.num_bytes)

    # --- training -----------------------------------------------------------------------------

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return self._progress.epoch

    @property
    def reports(self) -> list[Report]:
        """The reports of all epochs, those before a checkpoint included."""
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
        self._progress.reports.append(report)
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

    def _evaluate(self, epoch: int, num_steps: int) -> dict[str, float]:
        rows, _, logits = predict(self.task, ["dev"], self._mixed_precision())
        metrics = dev_metrics(self._label[rows], logits, self._labels)
        if not math.isfinite(metrics["dev/loss"]):
            raise DivergedError(self.stage, epoch, num_steps, metrics["dev/loss"])
        return metrics

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
        features, logits = predict_table(self.task, len(self._label), self._mixed_precision())
        self.task.model.load_state_dict(latest)
        dev = self._split == "dev"
        label, dev_logits = with_label(self._label[dev], logits[dev])
        metrics = {
            "epoch": self._progress.best_epoch,
            "seconds": self._progress.seconds,
            "samples_per_second": self._samples_per_second,
            "peak_memory": self._progress.peak_memory,
            "device": self.device.type,
            "reports": [asdict(report) for report in self._progress.reports],
            "dev": classification_metrics(label, dev_logits.argmax(axis=1), self._labels),
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
        """The whole session; see `magtkd.training.checkpoint`."""
        return Checkpoint(
            model=self.task.model.state_dict(),
            best={name: one for name, one in self._best.items() if name not in self._frozen},
            optimizer=self._optimizer.state_dict()["state"],
            scaler=self._scaler.state_dict(),
            progress=self._progress,
        ).to_bytes()

    def restore(self, checkpoint: bytes) -> None:
        """Continue from a checkpoint of the same stage, whose section may differ in values that
        leave shapes and data order alone.

        Raises:
            ValueError: the bytes are no checkpoint.
        """
        saved = Checkpoint.from_bytes(checkpoint)
        self.task.model.load_state_dict(saved.model)
        self._best = {name: tensor.to(self.device) for name, tensor in saved.best.items()}
        if self._best:
            weights = self.task.model.state_dict()
            self._best |= {name: weights[name].detach() for name in self._frozen}
        skeleton = self._optimizer.state_dict()
        self._optimizer.load_state_dict({**skeleton, "state": saved.optimizer})
        if saved.scaler:
            self._scaler.load_state_dict(saved.scaler)
        self._progress = saved.progress

    def _random(self, epoch: int) -> RandomState:
        return RandomState(derive_seed(self.seed, self.stage, epoch), self.device)
