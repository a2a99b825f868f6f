"""Ledgers, as every command reads them that shows a sweep."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from magtkd.errors import NoneCompletedError
from magtkd.metrics import Scores
from magtkd.pipeline import StageRecord
from tests.fuzz.limits import FUZZ, is_taken
from tests.fuzz.mutations import NUMBERS, TEXTS, VALUES, torn
from tune.ledger import (
    FORMAT,
    EpochReported,
    StagesRecorded,
    SweepChanged,
    SweepClosed,
    SweepEnd,
    SweepLayout,
    SweepOpened,
    SweepResumed,
    TestRevealed,
    TrialChanged,
    TrialEnded,
    TrialStatus,
    TrialSuggested,
    Warned,
    encode_event,
    open_ledger,
    read_sweep,
)
from tune.results import (
    FORMATS,
    best,
    device_cost,
    exported_config,
    print_status,
    sweep_cost,
    sweep_status,
    trial_rows,
    write_trials,
)

SCORES = Scores(0.7, 0.6, {"joy": 0.5})
STAGES = {"teacher": StageRecord("a1", "trained", 5.0), "fusion": StageRecord("b2", "reused", 0.1)}
EVENTS = (
    SweepOpened(
        time=1,
        name="mosi",
        config={
            "name": "mosi",
            "objective": [{"metric": "dev/weighted_f1", "mode": "max"}],
            "space": {"fusion.depth": {"int": [1, 3]}},
        },
        sweep_id="c0ffee",
        format=FORMAT,
        versions={"ray": "2"},
    ),
    TrialSuggested(time=2, trial=0, values={"fusion.depth": 2}),
    TrialSuggested(time=2, trial=1, values={"fusion.depth": 3}, seed=7),
    StagesRecorded(time=3, trial=0, stages=STAGES),
    EpochReported(time=4, trial=0, epoch=1, metrics={"dev/loss": 0.5, "dev/weighted_f1": 0.6}),
    TrialChanged(
        time=5,
        trial=1,
        epoch=2,
        values={"fusion.depth": 3, "fusion.dropout": 0.3},
        base={"fusion.depth": 3},
        changes={2: {"dropout": 0.3}},
    ),
    TrialEnded(time=6, trial=0, state=TrialStatus.COMPLETED, epoch=1, dev=SCORES, objectives=[0.6]),
    TestRevealed(time=7, trial=0, test=SCORES),
    Warned(time=8, message="a file was damaged"),
    SweepResumed(time=9, format=FORMAT),
    SweepChanged(time=9, changes={"search.num_trials": 30, "search.budget.hours": 2.5}),
    TrialEnded(time=10, trial=1, state=TrialStatus.FAILED, message="out of memory"),
    SweepClosed(time=11, reason=SweepEnd.FINISHED, why="search.budget.hours: 2.5 h are over"),
)
LINES = tuple(json.loads(encode_event(event)) for event in EVENTS)


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """Every mapping or list in a tree, each with one of its keys."""
    pairs = list(tree.items() if isinstance(tree, dict) else enumerate(tree))
    inner = [
        place for _, value in pairs if isinstance(value, dict | list) for place in _places(value)
    ]
    return [*((tree, key) for key, _ in pairs), *inner]


def _like(value: Any) -> st.SearchStrategy[Any]:
    """Values of the same type, at its edges."""
    if isinstance(value, str):
        return TEXTS | st.sampled_from(["running", "completed", "failed", "finished", "mosi"])
    if isinstance(value, int):
        return st.integers(0, 3) | st.sampled_from([-1, 2**31, 2**62, 2**63, 10**18])
    if isinstance(value, float):
        return NUMBERS
    return st.dictionaries(TEXTS, VALUES, max_size=2)


@st.composite
def ledgers(draw: st.DrawFn) -> bytes:
    """The bytes of a ledger."""
    lines = json.loads(json.dumps(LINES))
    places = [place for line in lines for place in _places(line)]
    for node, key in draw(st.lists(st.sampled_from(places), max_size=2)):
        how = draw(st.sampled_from(["alike", "alike", "alike", "replace", "remove", "rename"]))
        if how == "alike":
            node[key] = draw(_like(node.get(key) if isinstance(node, dict) else node[key]))
        elif how == "replace":
            node[key] = draw(VALUES)
        elif isinstance(node, dict):
            value = node.pop(key, None)
            if how == "rename":
                node[draw(TEXTS)] = value
    for _ in range(draw(st.integers(0, 1))):
        one, other = (draw(st.integers(0, len(lines) - 1)) for _ in range(2))
        how = draw(st.sampled_from(["swap", "repeat", "lose"]))
        if how == "swap":
            lines[one], lines[other] = lines[other], lines[one]
        elif how == "repeat":
            lines.insert(other, lines[one])
        else:
            del lines[one]
    content = "".join(f"{_as_json(line)}\n" for line in lines).encode()
    return draw(torn(content)) if draw(st.booleans()) else content


def _as_json(line: Any) -> str:
    try:
        return json.dumps(line)
    except RecursionError:
        return '{"kind": "sweep_resumed", "time": 1, "x": ' + "[" * 3000 + "]" * 3000 + "}"


def _show(layout: SweepLayout) -> None:
    state = read_sweep(layout)
    rows = trial_rows(state)
    for form in FORMATS:
        write_trials(rows, form, io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
    sweep_cost(state)
    device_cost(state)
    print_status(sweep_status(layout, str(layout.root)), Console(file=io.StringIO()))
    with contextlib.suppress(NoneCompletedError):
        for row in best(state, 2):
            exported_config(state, row.trial)


@FUZZ
@given(content=ledgers())
def test_a_ledger(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.getbasetemp() / "ledgers"
    shutil.rmtree(root, ignore_errors=True)
    layout = SweepLayout(root, "mosi")
    layout.folder.mkdir(parents=True)
    layout.ledger.write_bytes(content)
    if is_taken(lambda: _show(layout), root):
        assert layout.ledger.read_bytes() == content
        before = read_sweep(layout)
        with open_ledger(layout, resume=True) as ledger:
            ledger.append(SweepResumed(format=FORMAT))
        after = read_sweep(layout)
        assert after.trials == before.trials
        assert after.num_resumed == before.num_resumed + 1
