"""How a run got each stage: trained or reused, and what it cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

__all__ = ["Outcome", "StageRecord", "reused_record", "trained_record"]


class Outcome(StrEnum):
    """How a run got a stage."""

    TRAINED = "trained"
    REUSED = "reused"
    STOPPED = "stopped"
    """Its training was ended before its last epoch."""
    RECOVERED = "recovered"
    """Its artifact was found, and this very sweep had trained it."""


@dataclass(frozen=True)
class StageRecord:
    """How a run got a stage, the seconds that it spent on it, and for a reused stage the
    seconds that it `saved`, which is what its training had taken (None where that is unknown). For
    a trained one, utterances a second and the most bytes of memory, where they were measured.

    `device` is the kind of device that trained it, whenever that was, of which it had `share` (of
    a GPU, or CPUs); `host` is where this run trained it. None where that was not recorded."""

    key: str
    outcome: Outcome
    seconds: float
    saved: float | None = None
    samples_per_second: float | None = None
    peak_memory: int | None = None
    device: str | None = None
    share: float | None = None
    host: str | None = None


def trained_record(key: str, metrics: Mapping[str, Any]) -> StageRecord:
    """The record of a stage that was trained just now, from its artifact's metrics."""
    return StageRecord(
        key,
        Outcome.TRAINED,
        metrics["seconds"],
        samples_per_second=metrics.get("samples_per_second"),
        peak_memory=metrics.get("peak_memory"),
        device=metrics.get("device"),
        share=metrics.get("share"),
        host=metrics.get("host"),
    )


def reused_record(key: str, metrics: Mapping[str, Any]) -> StageRecord:
    """The record of a stage whose artifact was found, from its metrics; empty where it is gone."""
    return StageRecord(
        key,
        Outcome.REUSED,
        0.0,
        metrics.get("seconds"),
        device=metrics.get("device"),
        share=metrics.get("share"),
    )
