"""Ledgers, as every command reads them that shows a sweep."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from magtkd.errors import ConfigError, NoneCompletedError
from magtkd.metrics import Scores
from magtkd.pipeline import StageRecord
from tests.fuzz.limits import FUZZ, is_taken
from tests.fuzz.mutations import NUMBERS, TEXTS, VALUES, torn
from tune.ledger import (
    FORMAT,
    EpochReported,
    Event,
    RaceEntry,
    RaceSetup,
    RoundDecided,
    StagesRecorded,
    Standing,
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
    read_events,
    read_sweep,
)
from tune.results import (
    FORMATS,
    best,
    best_lines,
    confirmed_config,
    device_cost,
    exported_config,
    find_confirmation,
    print_confirmation,
    print_status,
    sweep_cost,
    sweep_status,
    trial_rows,
    write_trials,
)
from tune.search import Race

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
RACE = RaceSetup(
    name="confirm",
    sweep_id="c0ffee",
    entries=(
        RaceEntry(trial=0, values={"fusion.depth": 2}, score=0.6),
        RaceEntry(trial=1, values={"fusion.depth": 3}, changes={2: {"dropout": 0.3}}, score=0.5),
    ),
    seeds=(1, 2),
    num_completed=1,
)
FIGURES = {"mean": 0.5, "deviation": 0.1, "low": 0.4, "high": 0.6, "gap": 0.0, "p": 1.0}
CONFIRMED = (
    msgspec.structs.replace(EVENTS[0], sweep_id="facade", race=RACE),
    *(
        TrialSuggested(
            time=2,
            trial=number,
            values=RACE.entries[number % 2].values,
            changes=RACE.entries[number % 2].changes,
            seed=1 + number // 2,
        )
        for number in range(4)
    ),
    StagesRecorded(time=3, trial=0, stages=STAGES),
    *(
        TrialEnded(time=4, trial=number, state=TrialStatus.COMPLETED, dev=SCORES, objectives=[0.6])
        for number in range(3)
    ),
    TrialEnded(time=4, trial=3, state=TrialStatus.FAILED, message="out of memory"),
    RoundDecided(
        time=5,
        num_seeds=2,
        standings=[
            Standing(trial=0, **FIGURES),
            Standing(trial=1, is_out=True, failed="failed with seed 2: out of memory"),
        ],
        is_last=True,
        chosen=0,
    ),
    TestRevealed(time=7, trial=0, test=SCORES),
    TestRevealed(time=7, trial=2, test=SCORES),
    SweepClosed(time=11, reason=SweepEnd.FINISHED),
)


def _lines(events: Iterable[Event]) -> list[Any]:
    return [json.loads(encode_event(event)) for event in events]


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
def ledgers(draw: st.DrawFn, events: Sequence[Event]) -> bytes:
    """The bytes of a ledger that had some events."""
    lines = _lines(events)
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
@given(content=ledgers(EVENTS))
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


def _show_confirmation(layout: SweepLayout) -> None:
    sweep_state = read_sweep(layout)
    if (found := find_confirmation(layout, sweep_state)) is not None:
        found.to_json()
        best_lines(found, sweep_state)
        with contextlib.suppress(ConfigError):  # values that are no longer legal
            confirmed_config(found)
    state = read_sweep(layout.confirmation(1))
    if state.race is not None:
        print_confirmation(state, io.StringIO())
        Race(state.race, "accuracy", lambda keys: 1 / 0, read_events(layout.confirmation(1).ledger))
    print_status(sweep_status(layout, str(layout.root)), Console(file=io.StringIO()))


@FUZZ
@given(content=ledgers(CONFIRMED))
def test_a_ledger_of_a_confirmation(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.getbasetemp() / "confirmations"
    shutil.rmtree(root, ignore_errors=True)
    layout = SweepLayout(root, "mosi")
    place = layout.confirmation(1)
    place.folder.mkdir(parents=True)
    layout.ledger.write_bytes(b"".join(map(encode_event, EVENTS)))
    place.ledger.write_bytes(content)
    is_taken(lambda: _show_confirmation(layout), root)
    assert place.ledger.read_bytes() == content
