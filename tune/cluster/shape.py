"""What one worker asks of a node, and whether a node has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from magtkd.config import Resources

__all__ = ["ACCELERATOR", "A_LITTLE", "Shape", "amount_text", "label_matches", "shape_of"]

OPTIONS = {"CPU": "num_cpus", "GPU": "num_gpus", "memory": "memory"}
"""The options of a Ray actor that are not custom resources."""
ACCELERATOR = "accelerator_type:"
"""Ray's resource of a node for the kind of its accelerator, of which an actor asks for a little."""
A_LITTLE = 0.001


@dataclass(frozen=True)
class Shape:
    """What a worker asks of its node: sorted `amounts` (resource, amount), and `labels` (name,
    selector), by Ray's names."""

    amounts: tuple[tuple[str, float], ...]
    labels: tuple[tuple[str, str], ...] = ()

    def amount(self, name: str) -> float:
        """How much it asks of a resource."""
        return dict(self.amounts).get(name, 0.0)

    @cached_property
    def names(self) -> frozenset[str]:
        """The resources that it asks for."""
        return frozenset(name for name, _ in self.amounts)

    def options(self) -> dict[str, Any]:
        """The same as options of a Ray actor."""
        amounts = dict(self.amounts)
        given: dict[str, Any] = {"num_cpus": 0, "num_gpus": 0}
        given |= {OPTIONS[name]: amounts.pop(name) for name in OPTIONS if name in amounts}
        for name in list(amounts):
            if name.startswith(ACCELERATOR):
                given["accelerator_type"] = name.removeprefix(ACCELERATOR)
                del amounts[name]
        if amounts:
            given["resources"] = amounts
        if self.labels:
            given["label_selector"] = dict(self.labels)
        return given

    def lacks(self, amounts: Mapping[str, float]) -> set[str]:
        """The resources of which there is too little in some amounts."""
        return {name for name, amount in self.amounts if amounts.get(name, 0.0) < amount - 1e-6}

    def is_labelled(self, labels: Mapping[str, str]) -> bool:
        """Whether labels match."""
        return all(label_matches(wanted, labels.get(name)) for name, wanted in self.labels)

    def __str__(self) -> str:
        parts = [amount_text(name, amount) for name, amount in self.amounts]
        return ", ".join(parts + [f"label {name}={wanted}" for name, wanted in self.labels])


def amount_text(name: str, amount: float) -> str:
    """An amount of a resource, for people."""
    if name.startswith(ACCELERATOR):
        return name.removeprefix(ACCELERATOR)
    if name == "memory":
        return f"{amount / (1 << 30):.3g} GiB"
    return f"{amount:g} {name}"


def label_matches(wanted: str, value: str | None) -> bool:
    """Whether a label's value, None where there is none, matches a selector of Ray's: a value,
    `in(one, other)`, or `!` before either."""
    if wanted.startswith("!"):
        return not label_matches(wanted[1:], value)
    if wanted.startswith("in(") and wanted.endswith(")"):
        return value in [one.strip() for one in wanted[3:-1].split(",")]
    return value == wanted


def shape_of(resources: Resources) -> Shape:
    """A stage's resources by Ray's names."""
    amounts = {
        "CPU": resources.cpu,
        "GPU": resources.gpu or 0.0,
        "memory": float(resources.memory or 0),
        **resources.custom,
    }
    if resources.accelerator_type is not None:
        amounts[f"{ACCELERATOR}{resources.accelerator_type}"] = A_LITTLE
    asked = sorted((name, amount) for name, amount in amounts.items() if amount > 0)
    return Shape(tuple(asked), tuple(sorted(resources.label_selector.items())))
