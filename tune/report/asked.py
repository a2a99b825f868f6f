"""What was asked of a sweep, and how to repeat it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from magtkd.config import Config, dump_yaml, get_value
from tune.report.blocks import Block, Code, Section, Table
from tune.report.knob import Knob, knobs_of
from tune.report.subject import Subject
from tune.results import short_value

__all__ = ["asked_section", "default_of", "space_words"]


def asked_section(subject: Subject) -> Section:
    """Objective, space, sampler, scheduler, data, versions, and the commands that repeat it."""
    state, sweep = subject.state, subject.state.sweep
    scheduler = sweep.scheduler.model_dump(mode="json", exclude_none=True)
    search = sweep.search.model_dump(mode="json", exclude_none=True)
    data = sweep.data.model_dump(mode="json", exclude_defaults=True)
    rows = [
        ("objective", _objectives(subject)),
        ("search", _settings(search)),
        ("scheduler", _settings(scheduler)),
        ("data", _settings(data)),
        ("table's fingerprint", state.fingerprint[:16] or "not recorded"),
        ("training seed", str(sweep.seed)),
        ("versions", ", ".join(f"{name} {one}" for name, one in state.versions.items())),
    ]
    if state.changes:
        rows.append(("changed since", _settings(state.changes)))
    blocks: list[Block] = [
        Table(("", ""), rows),
        Table(
            ("searched", "over", "in the sweep's file"),
            [(*_names(knob), _base(subject, knob)) for knob in knobs_of(subject)],
            "Tied names take the same value.",
        ),
        Code(_commands(subject)),
        Code(dump_yaml(sweep), f"{state.name}.yaml: the whole sweep"),
    ]
    return Section("What was asked", blocks)


def _objectives(subject: Subject) -> str:
    return ", ".join(f"{one.mode} {one.metric}" for one in subject.state.objectives)


def _settings(tree: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name}: {one if isinstance(one, str) else json.dumps(one)}"
        for name, one in tree.items()
        if one != {}
    )


def _names(knob: Knob) -> tuple[str, str]:
    return " = ".join((knob.name, *knob.entry.tie)), space_words(knob)


def space_words(knob: Knob) -> str:
    """The values that a name is searched over, in words."""
    tree = knob.entry.to_tree()
    if "choice" in tree:
        words = ", ".join(knob.words)
    else:
        low, high = tree.get("float") or tree["int"]
        words = f"{short_value(low)} to {short_value(high)}"
        words += ", log" if tree.get("log") else ""
        words += f", step {tree['step']}" if "step" in tree else ""
    when = tree.get("when", {})
    return words + "".join(f", where {name} is {value}" for name, value in when.items())


def _base(subject: Subject, knob: Knob) -> str:
    value = get_value(subject.state.sweep.base, knob.name)
    return short_value(value) if not hasattr(value, "model_dump") else "a section"


def default_of(name: str) -> str:
    """The value that a name has where no file gives it; nothing where it has none."""
    value = get_value(Config(), name)
    return short_value(value) if not hasattr(value, "model_dump") else "a section"


def _commands(subject: Subject) -> str:
    name, storage = subject.name, subject.storage
    lines = [
        ["magtkd", "sweep", f"{name}.yaml", "--storage", storage],
        ["magtkd", "best", name, "--storage", storage, "--export", "best.yaml"],
        ["magtkd", "train", "best.yaml", "--storage", storage],
    ]
    if subject.status.resume:
        lines.insert(1, shlex.split(subject.status.resume))
    return "\n".join(map(shlex.join, lines))
