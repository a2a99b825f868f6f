"""Where each weight of the published MAGT (arXiv 2506.18716) lives in ours.

`others` holds, in this order, the streams of `STACKED`, `anchor` the shared `t_t`. The published
module also owns weights that it never uses, and its position codes as a buffer; both are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from magtkd.fusion.published.places import Place, encoder_places, require_weights

__all__ = ["correspondence", "is_unused", "published_sizes"]

STACKED = ("a_a", "v_v", "t_a", "v_a", "t_v", "a_v")
ATTENTION = ("proj_q", "proj_k", "proj_v", "fc")
UNUSED = re.compile(
    r"((a_t|v_t)(_gate)?|fc)\..*|\w_\w\.transformer_inter\.0\.layer_norm\..*|.*\.pos_emb\.pe"
)
LAYER = re.compile(r"t_t\.transformer_inter\.(\d+)\.self_attn\..*")


def correspondence(depth: int, hidden_dim: int) -> dict[str, Place]:
    """Published name to place, for every weight that is used."""
    places = {"speaker_embeddings.weight": Place("speaker_embedding.weight", slice(None))}
    encoders = [(name, "others", i) for i, name in enumerate(STACKED)] + [("t_t", "anchor", 0)]
    modules: list[tuple[str, str, int]] = []
    for name, ours, i in encoders:
        places |= encoder_places(
            name, ours, i, depth=depth, hidden_dim=hidden_dim, attention=ATTENTION
        )
        modules.append((f"{name}_gate.fc", f"{ours}.gate.linear", i))
    for letter, ours, i in (("t", "anchor", 0), ("a", "others", 0), ("v", "others", 1)):
        modules.append((f"features_reduce_{letter}", f"{ours}.reduce", i))
        modules.append((f"w_{letter}", f"{ours}.head", i))
    for published, module, i in modules:
        for kind in ("weight", "bias"):
            places[f"{published}.{kind}"] = Place(f"{module}.{kind}", i)
    return places


def published_sizes(state: Mapping[str, Any]) -> dict[str, Any]:
    """The sizes of a published state, as keywords of `MAGT`.

    Raises ValueError when a weight that gives one is missing.
    """
    layers = [int(found[1]) for found in map(LAYER.fullmatch, state) if found]
    first_layer = "t_t.transformer_inter.0.self_attn.proj_q.weight"
    required = ["w_t.weight", "speaker_embeddings.weight"]
    require_weights(state, required if layers else [*required, first_layer], "MAGT")
    num_classes, hidden_dim = state["w_t.weight"].shape
    return {
        "hidden_dim": hidden_dim,
        "depth": len(set(layers)),
        "num_classes": num_classes,
        "num_speakers": len(state["speaker_embeddings.weight"]) - 1,
    }


def is_unused(name: str) -> bool:
    """Whether the published module owns a weight of this name without using it."""
    return UNUSED.fullmatch(name) is not None
