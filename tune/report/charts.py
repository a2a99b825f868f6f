"""A figure as a value: what is drawn, before any library draws it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

__all__ = ["LARGE", "WIDE", "Axis", "Chart", "Floats", "Heat", "Marks", "Panel", "joined"]

LARGE = 7.0
"""The size above which a point has an edge, as it may be on a bar."""
WIDE = 500
"""The width of a panel above which nothing stands beside it."""

Floats = npt.NDArray[np.float64]
Kind = Literal["line", "steps", "points", "bars"]
Shape = Literal["circle", "square", "diamond", "triangle", "cross", "x", "star", "open"]


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One axis of a panel."""

    title: str = ""
    """With the unit in brackets."""
    log: bool = False
    names: tuple[str, ...] = ()
    """Of the positions 0, 1, 2, ..., where they are no numbers; from the top down on a y axis."""
    ticks: tuple[tuple[float, str], ...] = ()
    """Positions and their words, where others than the numbers are wanted."""
    range: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Marks:
    """Lines, points or horizontal bars of one kind; a NaN interrupts a line."""

    kind: Kind
    x: Floats
    y: Floats
    name: str = ""
    """In the legend, where it has one."""
    color: str
    opacity: float = 1.0
    size: float = 2.0
    """Width of a line, diameter of a point, in pixels."""
    shape: Shape = "circle"
    dashed: bool = False
    scale: Floats | None = None
    """What each point's colour stands for, instead of `color`."""
    scale_title: str = ""
    labels: tuple[str, ...] = ()
    """What is shown of each point where one can point at it."""


@dataclass(frozen=True, kw_only=True)
class Heat:
    """A table of coloured cells, the first row at the top; NaN is an empty cell."""

    values: Floats
    """[rows, columns]."""
    texts: tuple[tuple[str, ...], ...]
    title: str = ""
    """Of the scale of colours, where that is shown beside the texts."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One pair of axes, and what is drawn there."""

    x: Axis
    y: Axis
    marks: tuple[Marks, ...] = ()
    heat: Heat | None = None
    title: str = ""


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A figure: its panels stand side by side, or below each other where there is no room."""

    name: str
    """Of its files."""
    title: str
    caption: str
    """One sentence: what to read from it."""
    panels: tuple[Panel, ...]
    height: int = 320
    """Of each panel, in pixels."""
    width: int = 330
    """The least of each panel, in pixels."""


def joined(
    parts: Sequence[tuple[npt.ArrayLike, npt.ArrayLike]],
) -> tuple[Floats, Floats]:
    """Several lines as one, with a NaN between two."""
    gap = [np.array([np.nan])]
    x = [piece for one, _ in parts for piece in (np.asarray(one, np.float64), *gap)][:-1]
    y = [piece for _, one in parts for piece in (np.asarray(one, np.float64), *gap)][:-1]
    return (np.concatenate(x), np.concatenate(y)) if x else (np.array([]), np.array([]))
