"""The published values of fusion, which `fusion.recipe` names."""

from __future__ import annotations

from typing import Any

__all__ = ["RECIPES"]

PUBLISHED: dict[str, Any] = {
    "model": "magt",
    "hidden_dim": 768,
    "num_heads": 8,
    "depth": 1,
    "epochs": 30,
    "batch_size": 16,
    "accumulation": 1,
    "optimizer": "adamw",
    "learning_rate": 1e-4,
    "weight_decay": 1e-6,
    "dropout": 0.5,
    "gradient_norm": 10.0,
    "precision": "float32",
    "schedule": "published",
    "patience": None,
    "class_weights": "none",
    "temperature": 2.0,
    "feature_temperature": 1.0,
    "inter_weight": 1.0,
    "intra_weight": 1.0,
    "detach_anchor": False,
    "changes": {},
}
RECIPES: dict[str, dict[str, Any]] = {
    "published_meld": PUBLISHED
    | {"audio_weight": 0.01, "video_weight": 0.08, "feature_weight": 0.0},
    "published_iemocap": PUBLISHED
    | {"audio_weight": 0.7, "video_weight": 0.8, "feature_weight": 1.0},
}
"""MAGT's published values (arXiv 2506.18716 and its code), without those that make a baseline:
`gate`, `anchor`, `modalities` and `inputs` may be given beside a recipe."""
