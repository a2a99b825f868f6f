"""The colours of all figures, which people with any colour vision can tell apart, on white and on
black: those of Okabe and Ito for stages and states, and of Paul Tol ("bright") for emotions."""

from __future__ import annotations

from tune.ledger import TrialStatus
from tune.report.charts import Shape

__all__ = ["ACCENT", "GREY", "MAIN", "SCALE", "STAGES", "STATES", "emotion"]

MAIN, ACCENT, GREY = "#3d8bc4", "#d55e00", "#8c8f94"
STAGES = {
    "data": "#999999",
    "teacher": "#0072b2",
    "audio_media": "#b8860b",
    "audio": "#e69f00",
    "video_media": "#5f7f3f",
    "video": "#009e73",
    "fusion": "#cc79a7",
}
STATES = {
    TrialStatus.COMPLETED: MAIN,
    TrialStatus.STOPPED: GREY,
    TrialStatus.RUNNING: "#009e73",
    TrialStatus.DIVERGED: "#cc79a7",
    TrialStatus.FAILED: "#cc79a7",
}
SCALE = ((0.0, "#56a0c8"), (0.5, "#b9a88a"), (1.0, ACCENT))
"""From poor to good: of middle brightness, so that both ends show on white and on black."""

_EMOTIONS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#999999")
_SHAPES: tuple[Shape, ...] = ("circle", "square", "diamond", "triangle", "cross", "x", "star")


def emotion(index: int) -> tuple[str, Shape]:
    """The colour and the shape of a label, by its place among the labels; beyond seven, colours
    come again with other shapes."""
    again = index // len(_EMOTIONS)
    return _EMOTIONS[index % len(_EMOTIONS)], _SHAPES[(index + again) % len(_SHAPES)]
