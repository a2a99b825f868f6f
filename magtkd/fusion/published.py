"""Where each weight of the published MAGT (arXiv 2506.18716) lives in ours.

Published encoders and gates are named `READ_READER` by first letters (`t_a`: audio reads text).
Ours are stacked: `others` holds, in this order, the readings of `STACKED`, `anchor` the shared
`t_t`. The published module also owns weights that it never uses; they are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["correspondence", "load_published", "published_sizes"]

STACKED = ("a_a", "v_v", "t_a", "v_a", "t_v", "a_v")
UNUSED = re.compile(r"((a_t|v_t)(_gate)?|fc)\..*|\w_\w\.transformer_inter\.0\.layer_norm\..*")
LAYER = re.compile(r"t_t\.transformer_inter\.(\d+)\..*")
LAYER_MODULES = {
    "self_attn.proj_q": "attention.query",
    "self_attn.fc": "attention.output",
    "feed_forward.layer_norm": "inner_norm",
    "feed_forward.w_1": "inner",
    "feed_forward.w_2": "outer",
}
NUM_NAMES_SHOWN = 3


@dataclass(frozen=True)
class Place:
    """A part of one of our parameters: `parameter[index]`."""

    parameter: str
    index: Any


def correspondence(depth: int, hidden_dim: int) -> dict[str, Place]:
    """Published name to place, for every weight that is used."""
    places = {"speaker_embeddings.weight": Place("speaker_embedding.weight", slice(None))}
    for published, module, index in _modules(depth, hidden_dim):
        for kind in ("weight", "bias"):
            places[f"{published}.{kind}"] = Place(f"{module}.{kind}", index)
    return places


def published_sizes(state: Mapping[str, Any]) -> dict[str, Any]:
    """The sizes of a published state, as keywords of `MAGT`.

    Raises ValueError when a weight that tells one is missing.
    """
    tellers = ("w_t.weight", "speaker_embeddings.weight")
    layers = [int(found[1]) for found in map(LAYER.fullmatch, state) if found]
    missing = [name for name in tellers if name not in state]
    if not layers:
        missing.append("t_t.transformer_inter.0.self_attn.proj_q.weight")
    if missing:
        raise ValueError(f"not a published MAGT state: missing {_some(missing)}")
    num_classes, hidden_dim = state["w_t.weight"].shape
    return {
        "hidden_dim": hidden_dim,
        "depth": max(layers) + 1,
        "num_classes": num_classes,
        "num_speakers": len(state["speaker_embeddings.weight"]) - 1,
    }


def load_published(own: Mapping[str, Tensor], state: Mapping[str, Any], depth: int) -> None:
    """Copy a published state into our parameters, given by name.

    Raises ValueError that names what is missing, unknown, or of another shape.
    """
    hidden_dim = own["speaker_embedding.weight"].shape[1]
    places = correspondence(depth, hidden_dim)
    targets = {name: own[place.parameter].detach()[place.index] for name, place in places.items()}
    unknown = [name for name in state if name not in targets and not UNUSED.fullmatch(name)]
    problems = {
        "missing": [name for name in targets if name not in state],
        "unknown": unknown,
        "of another shape": [
            f"{name} {list(state[name].shape)} (not {list(target.shape)})"
            for name, target in targets.items()
            if name in state and tuple(state[name].shape) != tuple(target.shape)
        ],
    }
    if any(problems.values()):
        told = "; ".join(f"{what} {_some(names)}" for what, names in problems.items() if names)
        raise ValueError(f"not a published MAGT state: {told}")
    for name, target in targets.items():
        value = state[name]
        target.copy_(value if isinstance(value, Tensor) else torch.tensor(value))


def _modules(depth: int, hidden_dim: int) -> Iterator[tuple[str, str, Any]]:
    """(published module, our module, index into its stacked weights)."""
    encoders = [(name, "others", i) for i, name in enumerate(STACKED)] + [("t_t", "anchor", 0)]
    keys, values = slice(hidden_dim), slice(hidden_dim, None)
    for name, ours, i in encoders:
        for layer in range(depth):
            published, module = f"{name}.transformer_inter.{layer}", f"{ours}.layers.{layer}"
            for theirs, mine in LAYER_MODULES.items():
                yield f"{published}.{theirs}", f"{module}.{mine}", i
            yield f"{published}.self_attn.proj_k", f"{module}.attention.key_value", (i, keys)
            yield f"{published}.self_attn.proj_v", f"{module}.attention.key_value", (i, values)
            if layer:
                yield f"{published}.layer_norm", f"{module}.query_norm", i
        yield f"{name}_gate.fc", f"{ours}.gate.linear", i
    for letter, ours, i in (("t", "anchor", 0), ("a", "others", 0), ("v", "others", 1)):
        yield f"features_reduce_{letter}", f"{ours}.reduce", i
        yield f"w_{letter}", f"{ours}.head", i


def _some(names: Sequence[str]) -> str:
    more = len(names) - NUM_NAMES_SHOWN
    return ", ".join(names[:NUM_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
