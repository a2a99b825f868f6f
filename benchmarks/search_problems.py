"""Problems of known optimum: a chain of teacher, students and fusion, with continuous knobs."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from magtkd.pipeline import Plan
from tune.samplers import Columns
from tune.search.study import section_plan
from tune.space import Space, Values

__all__ = ["EPOCHS", "REGIMES", "SPACE", "Chain"]

SPACE: dict[str, dict[str, Any]] = {
    "teacher.learning_rate": {"float": [1e-5, 1e-2], "log": True},
    "teacher.dropout": {"float": [0.0, 0.7]},
    "audio.distill.temperature": {"float": [1.0, 8.0], "log": True},
    "video.distill.temperature": {"float": [1.0, 8.0], "log": True},
    "fusion.learning_rate": {"float": [1e-5, 1e-2], "log": True},
    "fusion.dropout": {"float": [0.0, 0.7]},
    "fusion.weight_decay": {"float": [1e-6, 1e-1], "log": True},
    "fusion.feature_weight": {"float": [0.01, 1.0], "log": True},
    "fusion.depth": {"int": [1, 4]},
}
REGIMES = {
    "10 : 6 : 4": {"teacher": 10.0, "audio": 3.0, "video": 3.0, "fusion": 4.0},
    "0.7 : 2.8 : 3.3": {"teacher": 0.7, "audio": 1.7, "video": 1.1, "fusion": 3.3},
    "60 : 100 : 4": {"teacher": 60.0, "audio": 50.0, "video": 50.0, "fusion": 4.0},
}
"""Costs of teacher, both students and fusion."""
EPOCHS = 27
FUSION_LEARNING_RATE = list(SPACE).index("fusion.learning_rate")
STAGES = ("teacher", "audio", "video", "fusion")


class Chain:
    """`top` minus a valley around a random point: quadratic, with some pairs of knobs coupled,
    and where `ripples` with local optima; plus noise of each artifact, which those who share it
    share. Fusion approaches its score over the epochs, faster for some knobs than for others."""

    top = 70.0

    def __init__(
        self,
        seed: int,
        costs: Mapping[str, float],
        *,
        ripples: bool = False,
        noise: float = 0.5,
        repeat: int = 0,
        shift: float = 0.0,
    ) -> None:
        """Args:
        seed: of the problem.
        costs: seconds of each stage.
        ripples: whether there are local optima.
        noise: standard deviation between seeds of training, in points.
        repeat: the seed of training.
        shift: how far the optimum is moved along each column, up or down, as on another table.
        """
        draw = np.random.default_rng(seed)
        self._costs, self._noise, self._ripples = costs, noise, ripples
        self._seed = f"{seed} {repeat}" if repeat else f"{seed}"
        self.space, self.epochs, self.whole = SPACE, EPOCHS, sum(costs.values())
        self.columns = Columns(Space.parse(SPACE))
        number = len(self.columns.names)
        self.best = draw.uniform(0.1, 0.9, number)
        """[K] the optimum's place, in columns."""
        weights = draw.exponential(1.0, number)
        factors = np.diag(np.sqrt(weights / weights.sum()))
        for one, other in draw.permutation(number)[:6].reshape(3, 2):
            factors[one, other] = draw.normal(0, 0.3)
        self._factors = factors
        self.best = np.clip(self.best + shift * draw.choice([-1.0, 1.0], number), 0.0, 1.0)

    def plan(self, values: Values) -> Plan:
        return section_plan(values)

    def seconds(self, stage: str, values: Values) -> float:
        return self._costs[stage]

    def answer(self, values: Values) -> float:
        """The score without noise."""
        away = self.columns.encode(values) - self.best
        distance = float(np.sum((self._factors @ away) ** 2))
        loss = 60 * distance / (1 + 2 * distance)
        if self._ripples:
            loss += float(np.sum(np.diag(self._factors) * (1 - np.cos(6 * math.pi * away))))
        return self.top - loss

    def curve(self, values: Values) -> Sequence[float]:
        plan = self.plan(values)
        noise = sum(self._normal(plan.keys[stage]) for stage in STAGES) * self._noise / 2
        # A low learning rate of fusion takes longer, so that early epochs order trials otherwise.
        pace = 5 + 3 * self.columns.encode(values)[FUSION_LEARNING_RATE]
        left = np.exp(-pace * np.arange(1, EPOCHS + 1) / EPOCHS)
        draw = np.random.default_rng(self._number(plan.keys["fusion"]))
        scores = self.answer(values) + noise - left * (25 + draw.normal(0, 0.3, EPOCHS))
        return [float(score) for score in scores]

    def _normal(self, key: str) -> float:
        return float(np.random.default_rng(self._number(key)).normal())

    def _number(self, key: str) -> int:
        digest = hashlib.sha256(f"{self._seed} {key}".encode()).digest()
        return int.from_bytes(digest[:8], "little")
