"""Where each weight of the published SDT (Ma et al., 2023) lives in ours.

`readers` holds, in this order, the streams of `STACKED`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from magtkd.fusion.published.places import Place, encoder_places, require_weights

__all__ = ["correspondence", "is_unused", "published_sizes"]

STACKED = ("t_t", "a_a", "v_v", "a_t", "v_t", "t_a", "v_a", "t_v", "a_v")
ATTENTION = ("linear_q", "linear_k", "linear_v", "linear")
INPUTS = {"text": "textf_input", "audio": "acouf_input", "video": "visuf_input"}
HEADS = ("t_output_layer.2", "a_output_layer.2", "v_output_layer.2")
UNUSED = re.compile(r"\w_\w\.transformer_inter\.0\.layer_norm\..*|.*\.pos_emb\.pe")
GATE = re.compile(r"\w_\w_gate\.fc\.weight")
LAYER = re.compile(r"t_t\.transformer_inter\.(\d+)\.self_attn\..*")


def correspondence(depth: int, hidden_dim: int, *, gate: str) -> dict[str, Place]:
    """Published name to place, for every weight that is used."""
    every = slice(None)
    places = {
        "speaker_embeddings.weight": Place("speaker_embedding.weight", every),
        "last_gate.fc.weight": Place("fuse.weight", every),
        "all_output_layer.weight": Place("head.weight", every),
        "all_output_layer.bias": Place("head.bias", every),
    }
    for modality, published in INPUTS.items():
        # A convolution of width 1 there: [H, F, 1].
        places[f"{published}.weight"] = Place(f"inputs.{modality}.weight", (..., None))
    for i, name in enumerate(STACKED):
        places |= encoder_places(
            name, "readers", i, depth=depth, hidden_dim=hidden_dim, attention=ATTENTION
        )
        if gate == "learned":
            places[f"{name}_gate.fc.weight"] = Place("readers.gate.linear.weight", i)
    for i, (letter, head) in enumerate(zip("tav", HEADS, strict=True)):
        for kind in ("weight", "bias"):
            places[f"features_reduce_{letter}.{kind}"] = Place(f"readers.reduce.{kind}", i)
            places[f"{head}.{kind}"] = Place(f"readers.head.{kind}", i)
    return places


def published_sizes(state: Mapping[str, Any]) -> dict[str, Any]:
    """The sizes of a published state, as keywords of `SDT`; where all gates of the streams are
    the identity, as in the variant for MELD, `gate` is `identity`.

    Raises ValueError when a weight that gives one is missing.
    """
    layers = [int(found[1]) for found in map(LAYER.fullmatch, state) if found]
    required = [f"{name}.weight" for name in (*INPUTS.values(), "all_output_layer")]
    required += ["speaker_embeddings.weight"]
    required += [] if layers else ["t_t.transformer_inter.0.self_attn.linear_q.weight"]
    require_weights(state, required, "SDT")
    num_classes, hidden_dim = state["all_output_layer.weight"].shape
    gates = [np.asarray(state[name]) for name in state if GATE.fullmatch(name)]
    is_identity = all(np.array_equal(gate, np.eye(hidden_dim)) for gate in gates)
    return {
        "widths": {modality: state[f"{name}.weight"].shape[1] for modality, name in INPUTS.items()},
        "hidden_dim": hidden_dim,
        "depth": len(set(layers)),
        "num_classes": num_classes,
        "num_speakers": len(state["speaker_embeddings.weight"]) - 1,
        "gate": "identity" if is_identity else "learned",
    }


def is_unused(name: str) -> bool:
    """Whether a weight of this name is not used, or is the identity (see `published_sizes`)."""
    return UNUSED.fullmatch(name) is not None or GATE.fullmatch(name) is not None
