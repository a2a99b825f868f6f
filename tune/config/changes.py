"""What of a sweep may change after it was begun."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from magtkd.config import override, validate
from magtkd.errors import SweepError, shorten
from tune.config.sweep import SweepConfig, check_sweep, needs_num_trials

__all__ = ["changed_sweep", "differences", "may_change", "with_changes"]

CHANGEABLE = (
    "search.num_trials",
    "search.budget",
    "search.stop_when",
    "search.max_concurrent",
    "resources",
)
"""Values and sections that change no trial."""
MOST_LEVELS = 4
"""Of a name in a ledger, which may be damaged."""


def differences(old: Any, new: Any, place: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The values in which two trees differ, by dotted name: name, old and new one."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        if old != new:
            yield place, old, new
        return
    for name in dict.fromkeys((*old, *new)):
        yield from differences(old.get(name), new.get(name), f"{place}.{name}" if place else name)


def may_change(name: str) -> bool:
    """Whether a value may be another after the sweep was begun."""
    return any(name == one or name.startswith(f"{one}.") for one in CHANGEABLE)


def with_changes(tree: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A tree with other values, by dotted name; sections that it does not have are added."""
    changed = copy.deepcopy(dict(tree))
    for name, value in changes.items():
        node = changed
        *sections, last = name.split(".", MOST_LEVELS)
        for section in sections:
            inner = node.get(section)
            node[section] = inner if isinstance(inner, dict) else {}
            node = node[section]
        node[last] = value
    return changed


def changed_sweep(
    sweep: SweepConfig, overrides: Sequence[str]
) -> tuple[SweepConfig, dict[str, Any]]:
    """A sweep that was begun with other settings from now on.

    Args:
        sweep: as it is.
        overrides: `key=value` with dotted keys.

    Returns:
        the sweep as it is from now on, and those of `CHANGEABLE` that differ, as they are now:
        sections whole, since what a mapping has lost could not be told otherwise.

    Raises:
        ConfigError: a key or value that is wrong by itself.
        SweepError: a change after which trials could not be compared or suggested as before, or
            parts that do not fit each other any more.
    """
    before = sweep.model_dump(mode="json")
    tree = copy.deepcopy(before)
    override(tree, overrides)
    changed = validate(SweepConfig, tree, f"sweep {sweep.name!r}")
    after = changed.model_dump(mode="json")
    found = list(differences(before, after))
    for name, old, new in found:
        if not may_change(name):
            raise SweepError(
                f"{name}: {_shown(new)}: sweep {sweep.name!r} was begun with {_shown(old)}, on "
                f"which its trials depend; start a new sweep with search.learn_from=[{sweep.name}]"
            )
    if changed.search.most_trials != sweep.search.most_trials:
        _check_number(changed)
    if found:
        check_sweep(changed)
    pairs = ((name, _value(before, name), _value(after, name)) for name in CHANGEABLE)
    return changed, {name: new for name, old, new in pairs if old != new}


def _value(tree: Mapping[str, Any], name: str) -> Any:
    return functools.reduce(lambda node, part: node[part], name.split("."), tree)


def _check_number(changed: SweepConfig) -> None:
    """Refuse another number of trials to what has made use of it."""
    for place, why in needs_num_trials(changed).items():
        raise SweepError(
            f"search.num_trials: {_shown(changed.search.most_trials)}: {place}: {why} "
            "search.num_trials, which cannot change; start a new sweep under another name"
        )


def _shown(value: Any) -> str:
    return shorten(json.dumps(value, ensure_ascii=False))
