"""From a sweep file's words for one name to its values: `{float: [1, 8], log: true}`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from magtkd.config import nearest
from magtkd.errors import SweepError, shorten
from tune.space.ranges import (
    CONFIDENCES,
    KINDS,
    Choice,
    Conditions,
    Entry,
    FloatRange,
    IntRange,
    Prior,
    value_name,
)

__all__ = ["parse_entry"]

SHARED = ("tie", "when", "prior", "prior_confidence")
"""What all kinds may have."""


def _parse_number(kind: str, value: Any) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not _fits(kind, value):
        raise SweepError(
            f"{kind}: {shorten(repr(value))} is not a{'n int' if kind == 'int' else ' number'}"
        )
    return int(value) if kind == "int" else float(value)


def _fits(kind: str, value: int | float) -> bool:
    try:
        return float(value).is_integer() if kind == "int" else math.isfinite(value)
    except OverflowError:  # a whole number that no float holds
        return kind == "int"


def _parse_names(names: Any) -> tuple[str, ...]:
    if isinstance(names, str):
        return (names,)
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise SweepError(f"tie: {shorten(repr(names))} is not a list of names")
    return tuple(names)


def _parse_conditions(tree: Any) -> Conditions:
    if not isinstance(tree, Mapping):
        raise SweepError(f"when: {shorten(repr(tree))} is not a mapping of names to values")
    conditions = tuple(
        (
            str(name),
            tuple(map(value_name, allowed if isinstance(allowed, list | tuple) else (allowed,))),
        )
        for name, allowed in tree.items()
    )
    for name, allowed in conditions:
        if not allowed:
            raise SweepError(f"when: {shorten(name)}: it is empty; write a value or a list of them")
    return conditions


def _parse_prior(kind: str, tree: Mapping[str, Any]) -> Prior | None:
    if "prior" not in tree:
        if "prior_confidence" in tree:
            raise SweepError("prior_confidence: there is no prior; give its value, prior: ...")
        return None
    value = tree["prior"]
    confidence = tree.get("prior_confidence", Prior.confidence)
    if confidence not in CONFIDENCES:
        raise SweepError(
            f"prior_confidence: {shorten(repr(confidence))} is none of {', '.join(CONFIDENCES)}"
        )
    if kind == "choice":
        return Prior(value_name(value), confidence)
    try:
        return Prior(_parse_number(kind, value), confidence)
    except SweepError as error:
        raise SweepError(f"prior: {error}") from None


def parse_entry(tree: Any) -> Entry:
    """The values that a sweep file names, such as `{float: [1, 8], log: true}`.

    Raises:
        SweepError: what is wrong with them, in one line.
    """
    kinds = [kind for kind in KINDS if isinstance(tree, Mapping) and kind in tree]
    if len(kinds) != 1:
        raise SweepError(
            f"{shorten(repr(tree))} names no values; write {{choice: [...]}}, "
            f"{{float: [low, high]}} or "
            "{int: [low, high]}"
        )
    kind = kinds[0]
    known = [kind, *(() if kind == "choice" else ("log", "step")), *SHARED]
    for key in tree:
        if key not in known:
            raise SweepError(
                f"{shorten(str(key))}: unknown key{nearest(str(key), known) or f' of a {kind}'}"
            )
    values = tree[kind]
    if not isinstance(values, list | tuple):
        raise SweepError(f"{kind}: {shorten(repr(values))} is not a list")
    shared: dict[str, Any] = {
        "tie": _parse_names(tree.get("tie", ())),
        "when": _parse_conditions(tree.get("when", {})),
        "prior": _parse_prior(kind, tree),
    }
    if kind == "choice":
        entry: Entry = Choice(tuple(map(value_name, values)), **shared)
    else:
        entry = _parse_range(kind, values, tree, shared)
    if entry.prior is not None and not entry.contains(entry.prior.value):
        raise SweepError(
            f"prior: {shorten(repr(entry.prior.value))} is none of its values; write one of these"
        )
    return entry


def _parse_range(
    kind: str, values: Sequence[Any], tree: Mapping[str, Any], shared: Mapping[str, Any]
) -> Entry:
    if len(values) != 2:
        raise SweepError(f"{kind}: {shorten(repr(list(values)))} is not [low, high]")
    log = tree.get("log", False)
    if not isinstance(log, bool):
        raise SweepError(f"log: {shorten(repr(log))} is neither true nor false")
    low, high = (_parse_number(kind, value) for value in values)
    step = tree.get("step")
    if step is not None:
        step = _parse_number(kind, step)
    if kind == "float":
        return FloatRange(low, high, log, step, **shared)
    return IntRange(low, high, log, 1 if step is None else step, **shared)
