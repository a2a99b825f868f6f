from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from magtkd.config import FusionConfig, TrainingSection
from magtkd.errors import DivergedError
from magtkd.schedules import SCHEDULES
from magtkd.training import Outputs, Report, Session, derive_seed

LABELS = ("anger", "joy", "sadness")
LABEL = np.array([0, 1, 2, 1, 0, 1, 2])
SPLIT = np.array(["train"] * 2 + ["dev"] * 4 + ["test"])


class _Model(nn.Module):
    """A weight, and a count of the epochs trained, which is kept with the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(5))
        self.dropout = nn.Dropout(0.5)
        self.register_buffer("epoch", torch.tensor(0))
        self.epoch: Tensor


class ScriptedTask:
    """A task whose logits in each epoch, and losses in each step, are given beforehand.

    Args:
        logits: [num_epochs][num_utterances, num_classes].
        losses: loss of each step of an epoch.
        slope: gradient of the loss by each weight.
    """

    def __init__(
        self, logits: Sequence[np.ndarray], losses: Sequence[float] = (1.0,), slope: float = 0.0
    ) -> None:
        self.model = _Model()
        self.num_items = 2
        self._logits, self._losses, self._slope = logits, losses, slope
        self.learning_rates: list[float] = []
        self.sections: list[Any] = []

    def batches(self, split: str, generator: torch.Generator | None) -> Iterator[Tensor]:
        if split == "train" and generator is not None:
            return (torch.tensor([step]) for step in range(len(self._losses)))
        return iter([torch.from_numpy(np.flatnonzero(split == SPLIT))])

    def loss(self, batch: Tensor, section: Any) -> Tensor:
        step = int(batch)
        if step == 0:
            self.model.epoch += 1
        self.sections.append(section)
        return self._losses[step] + self._slope * (self.model.weight - 1).sum()

    def num_utterances(self, batch: Tensor) -> int:
        return len(batch)

    def outputs(self, batch: Tensor) -> Outputs:
        logits = torch.from_numpy(self._logits[int(self.model.epoch) - 1])[batch]
        return Outputs(batch, torch.zeros(len(batch), 1), logits)


def make_session(task: ScriptedTask, section: TrainingSection) -> Session[Any, Any]:
    return Session(
        stage="teacher",
        section=section,
        seed=3,
        make_task=lambda: task,
        label=LABEL,
        split=SPLIT,
        labels=LABELS,
        device=torch.device("cpu"),
    )


def predict(*classes: int, sure: float = 1.0) -> np.ndarray:
    """Logits that say these classes for the four utterances of dev."""
    logits = np.zeros((len(LABEL), len(LABELS)), np.float32)
    logits[np.arange(2, 6), list(classes)] = sure
    return logits


# --- which epoch is kept ----------------------------------------------------------------------

# Dev's labels are 2 1 0 1. Accuracies: 1/4, 2/4, 2/4, 2/4; weighted F1: 0.25, 1/3, 0.5, 1/3.
SCRIPT = [
    predict(2, 0, 1, 0),
    predict(1, 1, 1, 1, sure=9.0),
    predict(2, 2, 2, 1, sure=3.0),
    predict(1, 1, 1, 1, sure=0.01),
]


SELECTED = [("accuracy", 2), ("weighted_f1", 3), ("loss", 4), ("f1/sadness", 1), ("f1/joy", 2)]


@pytest.mark.parametrize(("select", "best"), SELECTED)
def test_select(select: str, best: int) -> None:
    section = TrainingSection(epochs=4, select=select)
    session = make_session(ScriptedTask(SCRIPT), section)
    result = session.run()
    assert result.metrics["epoch"] == best
    assert np.array_equal(result.logits, SCRIPT[best - 1])
    metrics = result.metrics["reports"][best - 1]["metrics"]
    assert result.metrics["dev"]["accuracy"] == metrics["dev/accuracy"]
    assert int(session.task.model.epoch) == 4  # the session itself can go on


def test_metrics_of_a_report() -> None:
    session = make_session(ScriptedTask(SCRIPT, losses=(1.0, 2.0, 6.0)), TrainingSection(epochs=4))
    report = session.advance()
    logits = torch.from_numpy(SCRIPT[0][2:6])
    loss = nn.functional.cross_entropy(logits, torch.tensor([2, 1, 0, 1]))
    assert report.epoch == 1
    assert report.metrics == pytest.approx(
        {
            "train/loss": 3.0,
            "dev/loss": float(loss),
            "dev/accuracy": 1 / 4,
            "dev/weighted_f1": 1 / 4,
            "dev/macro_f1": 1 / 3,
            "dev/f1/anger": 0.0,
            "dev/f1/joy": 0.0,
            "dev/f1/sadness": 1.0,
        }
    )


def test_patience() -> None:
    # Accuracy 1/4, 2/4, 2/4 (no better), 1/4, and what would have been right.
    script = [SCRIPT[0], SCRIPT[1], SCRIPT[1], SCRIPT[0], predict(2, 1, 0, 1)]
    section = TrainingSection(epochs=5, patience=2, select="accuracy")
    session = make_session(ScriptedTask(script), section)
    epochs: list[Report] = []
    assert session.run(epochs.append).metrics["epoch"] == 2
    assert [report.epoch for report in epochs] == [1, 2, 3, 4]
    patient = section.model_copy(update={"patience": 3})
    assert make_session(ScriptedTask(script), patient).run().metrics["epoch"] == 5


# --- divergence -------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_that_is_not_finite(value: float) -> None:
    session = make_session(ScriptedTask(SCRIPT, losses=(1.0, value, 1.0)), TrainingSection())
    message = rf"^teacher: diverged: the loss was {value} in epoch 1, step 2; lower teacher\.learn"
    with pytest.raises(DivergedError, match=message):
        session.advance()


def test_a_dev_loss_that_is_not_finite() -> None:
    script = [SCRIPT[0], predict(0, 0, 0, 0, sure=float("nan"))]
    session = make_session(ScriptedTask(script, losses=(1.0, 1.0, 1.0)), TrainingSection())
    session.advance()
    with pytest.raises(DivergedError, match="the loss was nan in epoch 2, step 3; lower"):
        session.advance()


def test_diverged_error_survives_pickling() -> None:
    error = DivergedError("fusion", 3, 5, float("inf"))
    again = pickle.loads(pickle.dumps(error))
    assert (again.stage, again.epoch, again.step, again.value) == ("fusion", 3, 5, float("inf"))
    assert str(again) == str(error)


# --- gradients and rates ----------------------------------------------------------------------


@pytest.mark.parametrize(("slope", "norm"), [(1e4, 0.25), (0.01, 0.01 * 5**0.5)])
def test_clipping(slope: float, norm: float) -> None:
    task = ScriptedTask(SCRIPT, slope=slope)
    make_session(task, TrainingSection(gradient_norm=0.25)).advance()
    gradient = task.model.weight.grad
    assert gradient is not None
    assert float(gradient.norm()) == pytest.approx(norm, rel=1e-4)


def factors(section: TrainingSection, num_batches: int, num_items: int) -> list[float]:
    num_steps = num_batches * section.epochs
    return [
        SCHEDULES[section.schedule].factor(
            step=n, num_steps=num_steps, num_items=num_items, section=section
        )
        for n in range(num_steps)
    ]


def test_published_schedule() -> None:
    # 3 epochs of 2 batches that hold 4 conversations: warm-up 4 steps, decay to step 12.
    section = TrainingSection(epochs=3, schedule="published")
    expected = [0.0, 0.25, 0.5, 0.75, 8 / 8, 7 / 8]
    assert factors(section, num_batches=2, num_items=4) == pytest.approx(expected)


def test_published_schedule_of_one_epoch() -> None:
    section = TrainingSection(epochs=1, schedule="published")
    assert factors(section, num_batches=2, num_items=8) == pytest.approx([0.0, 1 / 8])


def test_linear_schedule() -> None:
    section = TrainingSection(epochs=2, schedule="linear", warmup=0.4)
    expected = [1 / 4, 2 / 4, 3 / 4, 1, 6 / 6, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6]
    assert factors(section, num_batches=5, num_items=99) == pytest.approx(expected)


@pytest.mark.parametrize("schedule", ["constant", "linear", "published"])
@pytest.mark.parametrize("warmup", [0.0, 0.05, 0.1, 0.33, 1.0])
@pytest.mark.parametrize("num_batches", [1, 7, 25])
def test_schedules_stay_within_their_peak(schedule: str, warmup: float, num_batches: int) -> None:
    section = TrainingSection(epochs=3, schedule=schedule, warmup=warmup)
    values = factors(section, num_batches, num_items=11)
    assert 0 <= min(values) <= max(values) <= 1
    assert max(values) == 1 or schedule == "published"


def test_the_session_follows_its_schedule() -> None:
    section = TrainingSection(epochs=4, schedule="linear", warmup=0.5, learning_rate=0.5)
    session = make_session(ScriptedTask(SCRIPT, losses=(1.0, 1.0)), section)
    rates = []
    for _ in range(4):
        session.advance()
        rates.append(session._optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.25, 0.5, 0.5 * 3 / 4, 0.5 * 1 / 4])


def test_changes_reach_the_step() -> None:
    section = FusionConfig(
        epochs=3,
        learning_rate=0.25,
        changes={2: {"learning_rate": 0.5, "dropout": 0.125, "weight_decay": 0.75}},
    )
    task = ScriptedTask(SCRIPT)
    session = make_session(task, section)
    seen = []
    for _ in range(3):
        session.advance()
        group = session._optimizer.param_groups[0]
        seen.append((group["lr"], group["weight_decay"], task.model.dropout.p))
    assert seen == [(0.25, 1e-6, 0.5), (0.5, 0.75, 0.125), (0.5, 0.75, 0.125)]
    assert [one.dropout for one in task.sections] == [0.5, 0.125, 0.125]


@pytest.mark.parametrize(("optimizer", "expected"), [("adamw", 1 - 0.125 * 0.5), ("adam", 0.875)])
def test_weight_decay_of_a_loss_without_slope(optimizer: str, expected: float) -> None:
    # Adam takes the decay for a gradient, and its first step has the size of the learning rate.
    section = TrainingSection(
        epochs=1, optimizer=optimizer, learning_rate=0.125, weight_decay=0.5, gradient_norm=1e9
    )
    session = make_session(ScriptedTask(SCRIPT), section)
    session.advance()
    weight = session.task.model.weight
    assert weight.tolist() == pytest.approx([expected] * 5, rel=1e-6)


# --- randomness -------------------------------------------------------------------------------


def test_seeds_differ() -> None:
    seeds = {
        derive_seed(seed, stage, epoch)
        for seed in range(5)
        for stage in ("teacher", "audio")
        for epoch in range(7)
    }
    assert len(seeds) == 5 * 2 * 7
    assert all(0 <= seed < 2**56 for seed in seeds)


def test_the_global_random_state_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    make_session(ScriptedTask(SCRIPT), TrainingSection(epochs=2)).run()
    assert torch.equal(torch.random.get_rng_state(), before)


# --- accumulation, speed and memory -----------------------------------------------------------


class _Regression:
    """Four utterances in each epoch, whose loss is a mean over each batch."""

    def __init__(self, batch_size: int) -> None:
        torch.manual_seed(0)
        self.model = nn.Linear(2, 3)
        self.num_items, self._size = 4, batch_size
        self._x = torch.linspace(-1.0, 2.0, 14).reshape(7, 2)

    def batches(self, split: str, generator: torch.Generator | None) -> Iterator[Tensor]:
        if generator is not None:
            return iter(torch.split(torch.arange(4), self._size))
        return iter([torch.from_numpy(np.flatnonzero(split == SPLIT))])

    def loss(self, batch: Tensor, section: Any) -> Tensor:
        return self.model(self._x[batch]).square().mean()

    def num_utterances(self, batch: Tensor) -> int:
        return len(batch)

    def outputs(self, batch: Tensor) -> Outputs:
        logits = self.model(self._x[batch])
        return Outputs(batch, logits, logits)


@pytest.mark.parametrize(
    ("size", "accumulation", "steps"), [(1, 4, 1), (2, 2, 1), (1, 2, 2), (3, 2, 1)]
)
def test_accumulated_batches_are_one(size: int, accumulation: int, steps: int) -> None:
    def weights(batch_size: int, accumulation: int) -> dict[str, Tensor]:
        section = TrainingSection(epochs=3, accumulation=accumulation)
        session = make_session(_Regression(batch_size), section)  # type: ignore[arg-type]
        while not session.is_done:
            session.advance()
        assert session._progress.step == 3 * steps
        return dict(session.task.model.state_dict())

    small, large = weights(size, accumulation), weights(size * accumulation, 1)
    for name, tensor in large.items():
        torch.testing.assert_close(small[name], tensor)


def test_a_remainder_of_batches_counts_as_its_own_mean() -> None:
    section = TrainingSection(epochs=1, accumulation=3)
    session = make_session(_Regression(1), section)  # type: ignore[arg-type]
    session.advance()
    assert session._progress.step == 2


def test_a_loss_that_is_not_finite_names_the_step_of_its_batches() -> None:
    task = ScriptedTask(SCRIPT, losses=[1.0, 1.0, 1.0, float("nan")])
    session = make_session(task, TrainingSection(epochs=1, accumulation=2))
    with pytest.raises(DivergedError, match="epoch 1, step 2"):
        session.advance()


def test_speed_and_memory_are_measured_and_survive_a_checkpoint() -> None:
    section = TrainingSection(epochs=2)
    session = make_session(_Regression(2), section)  # type: ignore[arg-type]
    session.advance()
    other = make_session(_Regression(2), section)  # type: ignore[arg-type]
    other.restore(session.checkpoint())
    other.advance()
    metrics = other.result().metrics
    assert metrics["samples_per_second"] > 0
    assert metrics["peak_memory"] >= session._progress.peak_memory > 0
    assert metrics["device"] == "cpu"


def test_numbers_that_numpy_draws_repeat_too() -> None:
    drawn: list[float] = []

    class Noisy(_Regression):
        def loss(self, batch: Tensor, section: Any) -> Tensor:
            drawn.append(float(np.random.rand()))
            return super().loss(batch, section)

    np.random.seed(5)
    outside = np.random.get_state()[1].tolist()
    for _ in range(2):
        session = make_session(Noisy(4), TrainingSection(epochs=2))  # type: ignore[arg-type]
        session.advance()
        session.advance()
    assert drawn[:2] == drawn[2:]
    assert drawn[0] != drawn[1]
    assert np.random.get_state()[1].tolist() == outside
