"""Published weights: copying them into our parameters, which have other names.

Published encoders and gates are named `SOURCE_TARGET` by first letters (`t_a`: audio attends to
text); ours are stacked, so a published weight is a part of one of our parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from magtkd.errors import and_more

__all__ = ["Place", "copy_published", "encoder_places", "require_weights"]

NUM_NAMES_SHOWN = 3


@dataclass(frozen=True)
class Place:
    """A part of one of our parameters: `parameter[index]`."""

    parameter: str
    index: Any


def encoder_places(
    published: str,
    ours: str,
    index: int,
    *,
    depth: int,
    hidden_dim: int,
    attention: Sequence[str],
) -> Iterator[tuple[str, Place]]:
    """The places of a published encoder's weights, which is one stream of our stacked `ours`.

    `attention` has the published names of its maps: query, key, value, output.
    """
    keys, values = slice(hidden_dim), slice(hidden_dim, None)
    query_name, key_name, value_name, output_name = attention
    for layer in range(depth):
        block, module = f"{published}.transformer_inter.{layer}", f"{ours}.layers.{layer}"
        pairs: list[tuple[str, str, Any]] = [
            (f"self_attn.{query_name}", "attention.query", index),
            (f"self_attn.{key_name}", "attention.key_value", (index, keys)),
            (f"self_attn.{value_name}", "attention.key_value", (index, values)),
            (f"self_attn.{output_name}", "attention.output", index),
            ("feed_forward.layer_norm", "inner_norm", index),
            ("feed_forward.w_1", "inner", index),
            ("feed_forward.w_2", "outer", index),
        ]
        if layer:
            pairs.append(("layer_norm", "query_norm", index))
        for theirs, mine, part in pairs:
            for kind in ("weight", "bias"):
                yield f"{block}.{theirs}.{kind}", Place(f"{module}.{mine}.{kind}", part)


def require_weights(state: Mapping[str, Any], names: Sequence[str], model: str) -> None:
    """Raise ValueError when one of these weights is missing."""
    missing = [name for name in names if name not in state]
    if missing:
        raise ValueError(
            f"not a published {model} state: missing {and_more(missing, NUM_NAMES_SHOWN)}"
        )


def copy_published(
    own: Mapping[str, Tensor],
    state: Mapping[str, Any],
    places: Mapping[str, Place],
    is_unused: Callable[[str], bool],
    model: str,
) -> None:
    """Copy a published state into our parameters, given by name.

    Raises ValueError that names what is missing, unknown, or of another shape.
    """
    targets = {name: own[place.parameter].detach()[place.index] for name, place in places.items()}
    problems = {
        "missing": [name for name in targets if name not in state],
        "unknown": [name for name in state if name not in targets and not is_unused(name)],
        "of another shape": [
            f"{name} {list(state[name].shape)} (not {list(target.shape)})"
            for name, target in targets.items()
            if name in state and tuple(state[name].shape) != tuple(target.shape)
        ],
    }
    if any(problems.values()):
        listed = "; ".join(
            f"{what} {and_more(names, NUM_NAMES_SHOWN)}"
            for what, names in problems.items()
            if names
        )
        raise ValueError(f"not a published {model} state: {listed}")
    for name, target in targets.items():
        value = state[name]
        target.copy_(value if isinstance(value, Tensor) else torch.tensor(value))
