"""What is read of each section but fusion's, whose models declare it themselves (`magtkd.models`).

An encoder of features is one kind, and all transformers are the other.
"""

from __future__ import annotations

from typing import Any

from magtkd.models import MODELS
from magtkd.reading import Choice, Given, Reads, always, is_on
from magtkd.schedules import SCHEDULES

__all__ = ["CLIP_ENCODER", "DATA", "DISTILL", "FUSION_MODEL", "SCHEDULE", "STUDENT", "TEXT_ENCODER"]

TRANSFORMER = "transformers encoders"


def _kind(encoder: str) -> str:
    return "features" if encoder == "features" else TRANSFORMER


def _encoder_reads(*names: str) -> dict[str, Reads]:
    common = ("train", "lora", "gradient_checkpointing")
    return {"features": {}, TRANSFORMER: dict.fromkeys((*names, *common), always)}


def _why_no_distill(section: Any, given: Given) -> str | None:
    return None if given.has_teacher else "there is no teacher to learn from"


def _why_no_logits(section: Any, given: Given) -> str | None:
    if section.logit_weight and not (section.inter_weight or section.intra_weight):
        return "inter_weight and intra_weight are 0"
    return is_on("logit_weight")(section, given)


def _why_no_carving(section: Any, given: Given) -> str | None:
    return "the table has a dev split" if given.has_dev else None


def _why_no_scaling(section: Any, given: Given) -> str | None:
    return None if given.has_features else "the table has no features"


def _why_no_clips(section: Any, given: Given) -> str | None:
    return None if given.has_clips else "no encoder reads clips"


SCHEDULE = Choice("schedule", {name: one.reads for name, one in SCHEDULES.items()})
FUSION_MODEL = Choice("model", {name: model.reads for name, model in MODELS.items()})
TEXT_ENCODER = Choice(
    "encoder", _encoder_reads("prompt_length", "template", "context", "max_length"), _kind
)
CLIP_ENCODER = Choice("encoder", _encoder_reads("pooling"), _kind)
STUDENT: Reads = {"distill": _why_no_distill}
DISTILL: Reads = {
    "temperature": _why_no_logits,
    "inter_weight": is_on("logit_weight"),
    "intra_weight": is_on("logit_weight"),
    "feature_temperature": is_on("feature_weight"),
}
DATA: Reads = {
    "dev_fraction": _why_no_carving,
    "standardise": _why_no_scaling,
    "media": _why_no_clips,
}
